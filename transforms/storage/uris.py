"""What is done to the text of a URI: resolving, hiding credentials, and the hash for sampling."""

from __future__ import annotations

import hashlib
import os.path
import re
from urllib.parse import unquote, unquote_plus

_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://")
_FILE_URI = re.compile(r"file://(?:localhost)?(?=/)", re.IGNORECASE)
_USERINFO = re.compile(r"(?<=://)[^/?#]*@")
_PASSWORD = re.compile(r"(?<=://)[^/?#@]*:[^/?#]*@")
_QUERY = re.compile(r"([^?#]*)\?([^#]*)")
_HERE = re.compile(r"^(?:\./+)+")

# The parameters by which a query is known to be a signature or a token, in lower case: Google
# (V4: X-Goog-*, V2: GoogleAccessId + Signature), AWS and those that speak its protocol (V4: X-Amz-*,
# V2: AWSAccessKeyId + Signature), CloudFront (Signature, Policy, Key-Pair-Id), Azure SAS (sig),
# Alibaba OSS (x-oss-signature), Tencent COS (q-signature); Firebase and many others (token).
_CREDENTIALS = frozenset(
    {
        "access_token",
        "auth_key",
        "awsaccesskeyid",
        "googleaccessid",
        "key-pair-id",
        "q-signature",
        "sig",
        "signature",
        "token",
        "x-amz-credential",
        "x-amz-security-token",
        "x-amz-signature",
        "x-goog-credential",
        "x-goog-signature",
        "x-oss-security-token",
        "x-oss-signature",
    }
)


def scheme(uri: str) -> str | None:
    """The scheme of a URI in lower case; None for a local path."""
    match = _SCHEME.match(uri)
    return match[1].lower() if match else None


def public_uri(uri: str) -> str:
    """The URI as it may be shown and written: without the query of a signed URL, and without a password.

    What holds no credential stays verbatim, character by character; so do local paths and object names
    on ``gs://``, in which ``?`` and ``@`` mean nothing.
    """
    kind = scheme(uri)
    if kind in ("http", "https"):
        uri = _USERINFO.sub("", uri, count=1)
        query = _QUERY.match(uri)
        return query[1] + uri[query.end() :] if query and _is_signed(query[2]) else uri
    if kind in (None, "file", "gs"):
        return uri
    # abfs://container@account is an address and no credential: here it takes a password.
    return _PASSWORD.sub("", uri, count=1)


def _is_signed(query: str) -> bool:
    names = (pair.partition("=")[0] for pair in re.split("[&;]", query))
    return any(unquote_plus(name).lower() in _CREDENTIALS for name in names)


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
