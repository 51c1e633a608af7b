"""Identities of images, by location or bytes, and hashes of their content."""

from __future__ import annotations

import hashlib
import re

import xxhash

from beamlabel.transforms.secrets.text import public_url
from beamlabel.transforms.storage.uris import scheme

# Prefixes of the hashed data, so that a location and inline bytes never share an identity.
_LOCATION, _BYTES, _MEMBER = b"location\0", b"bytes\0", b"member\0"
_SLASHES = re.compile(r"/(?:\.?/)+")
_AUTHORITY = re.compile(r"([a-z]+)://([^/?#]*)([^#]*)")
_DEFAULT_PORTS = {"http": ":80", "https": ":443"}


def image_id(location: str) -> str:
    """The identity of the image at a resolved location: 32 hex digits.

    It is the 16-byte BLAKE2b hash of ``location``, a NUL, and the UTF-8 of ``canonical_location``. Two locations share
    an identity only if they certainly name the same object.

    Args:
      location: absolute path or URI, from ``resolve``.
    """
    text = canonical_location(location).encode("utf-8", "surrogatepass")
    return hashlib.blake2b(_LOCATION + text, digest_size=16).hexdigest()


def image_id_of_member(archive: str, name: str) -> str:
    """The identity of a member of an archive: 32 hex digits.

    It is the 16-byte BLAKE2b hash of ``member``, a NUL, the UTF-8 of the archive's ``canonical_location``, a NUL, and
    the UTF-8 of the name. No file or object shares it, even one whose path is that of the archive followed by the
    member's.

    Args:
      archive: absolute path or URI.
      name: of the member, without ``./`` before it.
    """
    text = f"{canonical_location(archive)}\0{name}".encode("utf-8", "surrogatepass")
    return hashlib.blake2b(_MEMBER + text, digest_size=16).hexdigest()


def image_id_of_bytes(data: bytes) -> str:
    """The identity of an inline image: 32 hex digits, the 16-byte BLAKE2b hash of ``bytes``, a NUL, and the image."""
    digest = hashlib.blake2b(_BYTES, digest_size=16)
    digest.update(data)
    return digest.hexdigest()


def content_hash(data: bytes) -> str:
    """The 128-bit XXH3 hash of the encoded image, as 32 hex digits; see https://xxhash.com.

    It finds copies and changes. It is not a cryptographic hash: collisions can be made on purpose.
    """
    return xxhash.xxh3_128_hexdigest(data)


def content_bits(digest: str | None) -> int:
    """The first 64 bits of a ``content_hash``; 0 for None. Two versions of an image collide with probability 5e-20."""
    return int(digest[:16], 16) if digest else 0


def canonical_location(location: str) -> str:
    """The canonical spelling of a location, the same for all spellings that certainly mean the same.

    A local path loses doubled slashes and ``/./``, but neither ``..`` nor symbolic links are followed. ``http`` and
    ``https`` lose user information, the default port, the fragment, and parameters that are credentials; the host
    becomes lower case. Other URIs lose passwords and credentials. Names of objects on ``gs://`` stay as they are.
    """
    kind = scheme(location)
    if kind is None:
        return "file://" + _SLASHES.sub("/", location)
    location = kind + location[len(kind) :]
    if kind in ("gs", "file"):
        return location
    location = public_url(location)
    if kind not in _DEFAULT_PORTS:
        return location
    match = _AUTHORITY.match(location)
    if match is None:
        return location
    host = match[2].lower().removesuffix(_DEFAULT_PORTS[kind]).removesuffix(":")
    rest = match[3] if match[3].startswith("/") else "/" + match[3]
    return f"{kind}://{host}{rest.removesuffix('?')}"
