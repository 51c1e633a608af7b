"""Closed lists of reasons why an image has no row."""

from __future__ import annotations

from enum import Enum


class Stage(str, Enum):
    """The stage at which an image failed."""

    OPEN = "open"
    FETCH = "fetch"
    DECODE = "decode"
    INFERENCE = "inference"


class Reason(str, Enum):
    """The reason why an image failed: a closed list, explained in the README."""

    NULL_URI = "null_uri"
    INVALID_ROW = "invalid_row"
    FIELD_TAKEN = "field_taken"
    INVALID_URI = "invalid_uri"
    URI_TOO_LONG = "uri_too_long"
    NOT_FOUND = "not_found"
    FORBIDDEN = "forbidden"
    NOT_A_FILE = "not_a_file"
    UNSUPPORTED_SCHEME = "unsupported_scheme"
    NOT_ALLOWED = "not_allowed"
    SCHEME_NOT_ALLOWED = "scheme_not_allowed"
    TIMEOUT = "timeout"
    FETCH_ERROR = "fetch_error"
    TOO_MANY_BYTES = "too_many_bytes"
    EMPTY_FILE = "empty_file"
    NOT_AN_IMAGE = "not_an_image"
    TRUNCATED = "truncated"
    CORRUPT = "corrupt"
    UNSUPPORTED_FORMAT = "unsupported_format"
    TOO_MANY_PIXELS = "too_many_pixels"
    DECODE_TIMEOUT = "decode_timeout"
    DECODE_ERROR = "decode_error"
    INFERENCE_ERROR = "inference_error"
    INFERENCE_TIMEOUT = "inference_timeout"
    INTERNAL_ERROR = "internal_error"


class SkipReason(str, Enum):
    """The reason why a reference was skipped on purpose."""

    LABELED = "labeled"
    UNCHANGED = "unchanged"
    KNOWN_FAILURE = "known_failure"
    TIME_LIMIT = "time_limit"


class ImageError(Exception):
    """An image cannot be fetched or decoded; the pure functions for one image raise it, and it becomes a ``Failure``.

    Attributes:
      stage: the step that refused the image.
      reason: a reason from the closed list.
      detail: one line for people; contains no signed URL and no image bytes.
    """

    def __init__(self, stage: Stage, reason: Reason, detail: str) -> None:
        super().__init__(f"{stage.value}: {reason.value}: {detail}")
        self.stage = stage
        self.reason = reason
        self.detail = detail

    def __reduce__(self) -> tuple[type[ImageError], tuple[Stage, Reason, str]]:
        return type(self), (self.stage, self.reason, self.detail)
