"""Operations on the text of a URI: resolving, and the hash for sampling."""

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
    """The location of an image: an absolute local path or a URI.

    Args:
      uri: from the input: an absolute or relative path, a ``file://`` URI, or any other URI.
      base_dir: base of relative paths: a local directory or a URI such as ``gs://bucket/directory``.

    ``file://`` URIs are percent-decoded; bytes that are not UTF-8 become surrogates, as in Python's file names.
    Everything after the host is the path, including ``?`` and ``#``. In paths and object names every character is
    literal. A ``file://`` URI that names another host is not changed.
    """
    uri, base_dir = _local_path(uri), _local_path(base_dir)
    if uri.startswith("/") or _SCHEME.match(uri):
        return uri
    if _SCHEME.match(base_dir):
        # An object store has no current directory: `./a.jpg` and `a.jpg` are different objects.
        return f"{base_dir.rstrip('/')}/{_HERE.sub('', uri)}"
    return os.path.join(base_dir, uri)  # noqa: PTH118 (a Path would change `a//b`, and is ten times slower)


def _local_path(uri: str) -> str:
    if not _FILE_URI.match(uri):
        return uri
    return unquote(_FILE_URI.sub("", uri, count=1), errors="surrogateescape")


def sample_hash(uri: str) -> float:
    """A number in [0, 1) that depends on the URI alone: ``--sample F`` keeps the URIs below F.

    It is the 8-byte BLAKE2b hash of the UTF-8, as a big-endian fraction. The first 53 of its 64 bits count, since a
    float holds no more and rounding could reach 1.
    """
    digest = hashlib.blake2b(uri.encode("utf-8", "surrogatepass"), digest_size=8).digest()
    return (int.from_bytes(digest, "big") >> 11) / 2**53


def encodable(text: str) -> str:
    """The text with lone surrogates (file names that are not UTF-8) as escapes, such as ``\\udcff``."""
    return text.encode("utf-8", "backslashreplace").decode()
