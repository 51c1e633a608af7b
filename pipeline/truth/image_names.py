"""What the text of an image's location says: its parts, its file name, the folder that it lies in."""

from __future__ import annotations

import re
import unicodedata
from urllib.parse import unquote

from beamlabel.transforms.storage.uris import scheme

_AUTHORITY = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://[^/?#]*")
_MEMBER = re.compile(r"(?i)(?<=\.tar|\.tgz|\.tbz|\.txz|\.zip)#|(?<=\.tbz2|\.tzst)#|(?<=\.tar\.gz|\.tar\.xz)#")
_WEB = ("http", "https")


def parts_of(uri: str) -> list[str]:
    """The names of folders and file in a location, from the top, without host or bucket.

    Names on the web and in ``file://`` are percent-decoded, and a query or fragment is no part of them; elsewhere
    each character stands for itself. An archive is a folder of its members.
    """
    return [unquote(part) for part in _raw(uri)] if _is_encoded(uri) else _raw(uri)


def raw_parts_of(uri: str) -> list[str]:
    """The same, but percent-encoded as the text is."""
    return _raw(uri)


def composed(text: str) -> str:
    """The text with letters and their accents as one: file systems and editors differ in that (Unicode's NFC)."""
    return text if text.isascii() else unicodedata.normalize("NFC", text)


def plain_name(name: str) -> str:
    """A name as most people mean it: ``composed``, without spaces around it, and with slashes for Windows' ones."""
    text = composed(name.strip())
    return text if "/" in text else text.replace("\\", "/")


def parts_below(name: str) -> list[str]:
    """The parts of a relative name that are surely in the location: what follows the last ``..``."""
    parts = parts_of(name)
    if ".." not in parts:
        return parts
    return parts[len(parts) - parts[::-1].index("..") :]


def parent_of(uri: str, ref_id: str | None = None) -> str | None:
    """The name of the folder that an image lies in; None at the top of a host, a bucket, a disk or an archive.

    Args:
      uri: of the row.
      ref_id: of the row; it tells members of archives for sure.
    """
    archive = ref_id.rpartition("#")[0] + "#" if ref_id and "#" in ref_id else None
    if archive and uri.startswith(archive):
        parts = _split(uri[len(archive) :])
    elif len(found := _MEMBER.split(uri, maxsplit=1)) == 2:
        parts = _split(found[1])
    else:
        parts = parts_of(uri)
    return parts[-2] if len(parts) > 1 else None


def folder_of(uri: str) -> str:
    """All of a location before its last slash."""
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
