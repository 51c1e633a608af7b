"""Explanations of ``not_found``: a malformed reference, or the path that was tried."""

from __future__ import annotations

import hashlib
import os
import re
import unicodedata
from urllib.parse import unquote

from beamlabel.transforms.records import ImageError, ImageRef, Reason, Stage
from beamlabel.transforms.storage.uris import public_uri, scheme

_SHOWN_CHARACTERS = 300
# RFC 2397: an optional media type or parameter, then a comma.
_DATA = re.compile(r"[\s\"'<]*data:(?:[\w.+-]+/[\w.+-]+)?(?:;[^,;]*)*,", re.IGNORECASE)
_SCHEME_WITHOUT_SLASHES = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+):(?!//)")
_WITH_SLASHES = frozenset(
    [
        "http",
        "https",
        "ftp",
        "ftps",
        "sftp",
        "s3",
        "s3a",
        "s3n",
        "gs",
        "gcs",
        "hdfs",
        "abfs",
        "abfss",
        "wasb",
        "wasbs",
        "az",
        "file",
    ]
)
_OF_NO_IMAGE = frozenset(
    [
        "data",
        "blob",
        "mailto",
        "javascript",
        "about",
        "urn",
        "cid",
        "tel",
        "content",
        "android-app",
        "chrome",
        "ipfs",
    ]
)
_WINDOWS = re.compile(r"[A-Za-z]:/|.*\\")
_HOST = re.compile(r"//[\w-]+(?:\.[\w-]+)*\.[A-Za-z]{2,}(?::\d+)?/")
_QUOTES = "\"'`“”„‘’«»"
# Invisible characters that are valid in names: they join letters and emoji.
_JOINERS = "\u200c\u200d"


def is_data_uri(uri: str) -> bool:
    """Whether the text is a ``data:`` URI, which contains the image (RFC 2397)."""
    return _DATA.match(uri) is not None


def data_uri_error() -> ImageError:
    """The error of a ``data:`` URI."""
    detail = (
        "data: URIs are not supported; put the bytes in a separate column or field and name it with --image_column "
        "(LabelImages: image)"
    )
    return ImageError(Stage.FETCH, Reason.UNSUPPORTED_SCHEME, detail)


def shown_uri(uri: str) -> str:
    """The URI for logs and outputs, see ``public_uri``; a ``data:`` URI is cut, and its SHA-256 appended."""
    if len(uri) <= _SHOWN_CHARACTERS or not is_data_uri(uri):
        return public_uri(uri)
    head, _, content = uri.partition(",")
    digest = hashlib.sha256(uri.encode("utf-8", "surrogatepass")).hexdigest()
    return f"{head[:100]},{content[:16]}…({len(uri)} characters, SHA-256 {digest})"


def explained(error: ImageError, ref: ImageRef) -> ImageError:
    """Adds an explanation to a ``not_found``; returns other errors unchanged.

    The reason becomes ``invalid_uri`` or ``unsupported_scheme`` if the reference is recognizably not a path or URI.
    Else the detail shows the path that was tried, and the base directory of a relative reference.
    """
    if error.reason is not Reason.NOT_FOUND:
        return error
    found = _malformed(ref)
    if found is None:
        return ImageError(error.stage, error.reason, f"{error.detail}: {_tried(ref)}")
    reason, detail = found
    return ImageError(error.stage, reason, f"{detail}; tried {_tried(ref)}")


def _tried(ref: ImageRef) -> str:
    location = _cut(public_uri(ref.location))
    base = _base_dir(ref)
    return (
        location if base is None else f"{location} (relative to the base directory {_cut(public_uri(base))})"
    )


def _base_dir(ref: ImageRef) -> str | None:
    """The base directory of a relative reference; None for an absolute one."""
    if ref.uri.startswith("/") or scheme(ref.uri) is not None or ref.location == ref.uri:
        return None
    for relative in (ref.uri, re.sub(r"^(?:\./+)+", "", ref.uri)):
        if relative and ref.location.endswith(relative):
            base = ref.location.removesuffix(relative)
            return base if len(base) == 1 else base.rstrip("/")
    return None


def _cut(text: str) -> str:
    if len(text) <= _SHOWN_CHARACTERS:
        return text
    half = _SHOWN_CHARACTERS // 2
    return f"{text[:half]}…{text[-half:]} ({len(text)} characters)"


def _malformed(ref: ImageRef) -> tuple[Reason, str] | None:
    """Reason and detail of a reference that is recognizably not a path or URI; else None."""
    uri = ref.uri
    if is_data_uri(uri):
        error = data_uri_error()
        return error.reason, error.detail
    detail = _odd_characters(uri) or _odd_start(uri)
    if detail is None and _is_there_decoded(ref):
        detail = "the path is percent-encoded, which only file:// URIs may be"
    if detail is not None:
        return Reason.INVALID_URI, detail
    match = _SCHEME_WITHOUT_SLASHES.match(uri)
    if match is not None and match[1].lower() in _OF_NO_IMAGE:
        return Reason.UNSUPPORTED_SCHEME, f"{match[1]}: URIs are not supported"
    if match is not None and match[1].lower() in _WITH_SLASHES:
        return Reason.INVALID_URI, f"{match[1]}: needs two slashes, as in {match[1].lower()}://"
    return None


def _odd_characters(uri: str) -> str | None:
    if uri != uri.strip():
        return "the reference begins or ends with blanks"
    odd = next(
        (c for c in uri if c not in _JOINERS and unicodedata.category(c) in ("Cc", "Cf", "Zl", "Zp")), None
    )
    if odd is not None:
        return f"the reference holds an invisible character, U+{ord(odd):04X}"
    if "\ufffd" in uri:
        return "the reference holds U+FFFD, which replaces bytes that are not UTF-8"
    if uri[:1] in _QUOTES or uri[-1:] in _QUOTES:
        return "the reference begins or ends with a quotation mark"
    return None


def _odd_start(uri: str) -> str | None:
    if "://" in uri and scheme(uri) is None:
        return "the reference holds a URI, but does not begin with it"
    if uri.startswith("<") and uri.endswith(">"):
        return "the reference is in angle brackets"
    if scheme(uri) is not None:
        return None
    if _HOST.match(uri):
        return "the reference begins with // and a host name; put https: before it"
    if uri.lower().startswith("www."):
        return "the reference begins with a host name; put https:// before it"
    if _WINDOWS.match(uri):
        return (
            "the reference is a Windows path; use the path with slashes where it is mounted on this machine"
        )
    return None


def _is_there_decoded(ref: ImageRef) -> bool:
    """Whether a local file with the percent-decoded path exists."""
    path = ref.location
    decoded = unquote(path, errors="surrogateescape")
    try:
        return scheme(path) is None and decoded != path and os.path.isfile(decoded)  # noqa: PTH113
    except ValueError:
        return False
