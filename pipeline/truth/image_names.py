"""Parses the location of an image into directories and file name."""

from __future__ import annotations

import re
import unicodedata
from urllib.parse import unquote

from beamlabel.transforms.storage.uris import scheme

_AUTHORITY = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://[^/?#]*")
_MEMBER = re.compile(r"(?i)(?<=\.tar|\.tgz|\.tbz|\.txz|\.zip)#|(?<=\.tbz2|\.tzst)#|(?<=\.tar\.gz|\.tar\.xz)#")
_WEB = ("http", "https")


def parts_of(uri: str) -> list[str]:
    """The names of directories and file in a location, from the top, without host or bucket.

    On the web and in ``file://``, names are percent-decoded and a query or fragment is dropped; elsewhere every
    character stands for itself. An archive counts as a directory of its members.
    """
    return [unquote(part) for part in _raw(uri)] if _is_encoded(uri) else _raw(uri)


def raw_parts_of(uri: str) -> list[str]:
    """The same as ``parts_of``, but without percent-decoding."""
    return _raw(uri)


def composed(text: str) -> str:
    """The text in Unicode's NFC, which joins letters and accents: file systems and editors differ in that."""
    return text if text.isascii() else unicodedata.normalize("NFC", text)


def plain_name(name: str) -> str:
    """A normalized name: ``composed``, without surrounding spaces, and with slashes for backslashes."""
    text = composed(name.strip())
    return text if "/" in text else text.replace("\\", "/")


def parts_below(name: str) -> list[str]:
    """The parts of a relative name that certainly occur in the location: those after the last ``..``."""
    parts = parts_of(name)
    if ".." not in parts:
        return parts
    return parts[len(parts) - parts[::-1].index("..") :]


def parent_of(uri: str, ref_id: str | None = None) -> str | None:
    """The name of an image's directory; None at the top of a host, a bucket, a disk or an archive.

    Args:
      uri: URI of the row.
      ref_id: ``ref_id`` of the row, which identifies members of archives with certainty.
    """
    archive = ref_id.rpartition("#")[0] + "#" if ref_id and "#" in ref_id else None
    if archive and uri.startswith(archive):
        parts = _split(uri[len(archive) :])
    elif len(found := _MEMBER.split(uri, maxsplit=1)) == 2:
        parts = _split(found[1])
    else:
        parts = parts_of(uri)
    return parts[-2] if len(parts) > 1 else None


def directory_of(uri: str) -> str:
    """The part of a location before its last slash."""
    return uri.rpartition("/")[0]


def _is_encoded(uri: str) -> bool:
    return "%" in uri and scheme(uri) in (*_WEB, "file")


def _raw(uri: str) -> list[str]:
    kind = scheme(uri)
    path = uri if kind is None else _AUTHORITY.sub("", uri, count=1)
    if "#" not in path and kind not in _WEB:
        return _split(path)
    archive, *member = _MEMBER.split(path, maxsplit=1)
    if kind in _WEB:
        archive = re.split("[?#]", archive, maxsplit=1)[0]
    return [part for one in (archive, *member) for part in _split(one)]


def _split(path: str) -> list[str]:
    return [part for part in path.split("/") if part and part != "."]
