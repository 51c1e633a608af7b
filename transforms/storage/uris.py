"""What is done to the text of a URI: resolving, and the hash for sampling."""

from __future__ import annotations

import hashlib
import os.path
import re
from urllib.parse import unquote

from beamlabel.transforms.secrets.text import public_uri as public_uri

_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://")
# RFC 8089: two slashes and perhaps this host before the path, or the path alone.
_FILE_URI = re.compile(r"file:(?://(?:localhost)?(?=/)|(?=/(?!/)))", re.IGNORECASE)
_HERE = re.compile(r"^(?:\./+)+")


def scheme(uri: str) -> str | None:
    """The scheme of a URI in lower case; None for a local path."""
    match = _SCHEME.match(uri)
    return match[1].lower() if match else None


def resolve(uri: str, base_dir: str) -> str:
    """Where the image is: an absolute local path, or a URI.

    Args:
      uri: what the input says: an absolute or relative path, a ``file://`` URI, or any other URI.
      base_dir: what relative paths are relative to: a local folder or a URI such as ``gs://bucket/folder``.

    ``file://`` URIs are percent-decoded (with bytes that are no UTF-8 as Python's file names have them); all
    that follows the host is the path, also ``?`` and ``#``. In paths and object names every character stands
    for itself. A ``file://`` URI that names another host is not changed.
    """
    uri, base_dir = _local_path(uri), _local_path(base_dir)
    if uri.startswith("/") or _SCHEME.match(uri):
        return uri
    if _SCHEME.match(base_dir):
        # An object store knows no current folder: `./a.jpg` would be another object than `a.jpg`.
        return f"{base_dir.rstrip('/')}/{_HERE.sub('', uri)}"
    return os.path.join(base_dir, uri)  # noqa: PTH118 (a Path would change `a//b`, and is ten times slower)


def _local_path(uri: str) -> str:
    if not _FILE_URI.match(uri):
        return uri
    return unquote(_FILE_URI.sub("", uri, count=1), errors="surrogateescape")


def sample_hash(uri: str) -> float:
    """A number in [0, 1) that depends on the URI alone: ``--sample F`` keeps what is below F.

    It is the BLAKE2b of 8 bytes over the UTF-8, as a big-endian fraction; of its 64 bits the first 53 count,
    since a float holds no more and rounding would reach 1.
    """
    digest = hashlib.blake2b(uri.encode("utf-8", "surrogatepass"), digest_size=8).digest()
    return (int.from_bytes(digest, "big") >> 11) / 2**53


def encodable(text: str) -> str:
    """The text with lone surrogates (file names that are not UTF-8) written as escapes, as ``\\udcff``."""
    return text.encode("utf-8", "backslashreplace").decode()
