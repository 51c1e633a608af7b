"""Why nothing was found: a text that is no path and no URI of an image says so, all else tells what was tried."""

from __future__ import annotations

import hashlib
import os
import re
import unicodedata
from urllib.parse import unquote

from beamlabel.transforms.records import ImageError, ImageRef, Reason, Stage
from beamlabel.transforms.storage.uris import public_uri, scheme

_SHOWN_CHARACTERS = 300
# RFC 2397: a media type, or a parameter, or nothing, and then a comma.
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
# Invisible characters that belong in names: they join letters and emoji.
_JOINERS = "\u200c\u200d"


def is_data_uri(uri: str) -> bool:
    """Whether the text is an image itself, as browsers take it (RFC 2397)."""
    return _DATA.match(uri) is not None


def data_uri_error() -> ImageError:
    """What a ``data:`` URI fails with."""
    detail = (
        "data: URIs are not read; put the bytes into a column or field of their own, and name it by --image_column "
        "(LabelImages: image)"
    )
    return ImageError(Stage.FETCH, Reason.UNSUPPORTED_SCHEME, detail)


def shown_uri(uri: str) -> str:
    """The URI as it may be shown and written: see ``public_uri``; a ``data:`` URI is cut, and ends in its SHA-256."""
    if len(uri) <= _SHOWN_CHARACTERS or not is_data_uri(uri):
        return public_uri(uri)
    head, _, content = uri.partition(",")
    digest = hashlib.sha256(uri.encode("utf-8", "surrogatepass")).hexdigest()
    return f"{head[:100]},{content[:16]}…({len(uri)} characters, SHA-256 {digest})"


def explained(error: ImageError, ref: ImageRef) -> ImageError:
    """A ``not_found`` that says more; any other error as it is.

    Its reason becomes ``invalid_uri`` or ``unsupported_scheme`` if the reference is recognisably no path or URI; else
    the detail shows the path that was tried, and what a relative reference was relative to.
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
    """What a relative reference was relative to; None for an absolute one."""
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
    """Reason and detail for a text that is no path and no URI, as far as one can see."""
    uri = ref.uri
    if is_data_uri(uri):
        error = data_uri_error()
        return error.reason, error.detail
    detail = _odd_characters(uri) or _odd_start(uri)
    if detail is None and _is_there_decoded(ref):
        detail = "it is percent-encoded, which file:// URIs are and paths are not"
    if detail is not None:
        return Reason.INVALID_URI, detail
    match = _SCHEME_WITHOUT_SLASHES.match(uri)
    if match is not None and match[1].lower() in _OF_NO_IMAGE:
        return Reason.UNSUPPORTED_SCHEME, f"nothing here reads {match[1]}: URIs"
    if match is not None and match[1].lower() in _WITH_SLASHES:
        return Reason.INVALID_URI, f"{match[1]}: is not followed by two slashes, as in {match[1].lower()}://"
    return None


def _odd_characters(uri: str) -> str | None:
    if uri != uri.strip():
        return "it begins or ends with blanks"
    odd = next(
        (c for c in uri if c not in _JOINERS and unicodedata.category(c) in ("Cc", "Cf", "Zl", "Zp")), None
    )
    if odd is not None:
        return f"it holds an invisible character, U+{ord(odd):04X}"
    if "\ufffd" in uri:
        return "it holds U+FFFD, which stands for bytes that are not UTF-8"
    if uri[:1] in _QUOTES or uri[-1:] in _QUOTES:
        return "it begins or ends with a quotation mark"
    return None


def _odd_start(uri: str) -> str | None:
    if "://" in uri and scheme(uri) is None:
        return "it holds a URI, but does not begin with it"
    if uri.startswith("<") and uri.endswith(">"):
        return "it stands in angle brackets"
    if scheme(uri) is not None:
        return None
    if _HOST.match(uri):
        return "it begins with // and the name of a host; put https: before it"
    if uri.lower().startswith("www."):
        return "it begins with the name of a host; put https:// before it"
    if _WINDOWS.match(uri):
        return "it is a path of Windows; write it with slashes, and as it is mounted here"
    return None


def _is_there_decoded(ref: ImageRef) -> bool:
    """Whether there is a local file of the name without its percent-encoding."""
    path = ref.location
    decoded = unquote(path, errors="surrogateescape")
    try:
        return scheme(path) is None and decoded != path and os.path.isfile(decoded)  # noqa: PTH113
    except ValueError:
        return False
