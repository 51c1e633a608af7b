"""Fetches one image's bytes from a local file, ``gs://``, ``s3://``, ``http(s)://`` or Beam's file systems.

``fetch`` is thread-safe. Every failure is an ``ImageError`` with a reason of the closed list; transient errors are
tried again until the deadline.
"""

from __future__ import annotations

import errno
import math
import os
import time
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, BinaryIO

from beamlabel.transforms.loading.capped_buffer import Capped
from beamlabel.transforms.loading.web.allowed_schemes import LOCAL, check_schemes, not_allowed
from beamlabel.transforms.loading.web.http_options import HttpOptions
from beamlabel.transforms.records import ImageError, Reason, Stage
from beamlabel.transforms.storage import beam, beam_setup
from beamlabel.transforms.storage.billing import check_billing_project
from beamlabel.transforms.storage.disk.regular_file import kind_of_other, open_nonblocking
from beamlabel.transforms.storage.retries import LAST_START, retried
from beamlabel.transforms.storage.uris import public_uri, scheme

if TYPE_CHECKING:
    from beamlabel.transforms.loading.http_fetch import HttpFetch

_CHUNK = 1 << 20


@dataclass(frozen=True)
class FetchOptions:
    """Limits of fetching: which images, and the cost of each.

    Attributes:
      max_bytes: cap on the encoded image, in bytes.
      deadline: seconds that an image may take, all tries together.
      allow_http: whether ``http://`` and ``https://`` are fetched.
      allow_private_hosts: whether these hosts may have non-public addresses.
      http: headers and rate limits for web servers.
      billing_project: project that pays for requests to ``gs://``; None: the bucket's owner pays.
      allowed_schemes: schemes whose images are fetched, in lower case; ``file``: local paths. None: all.

    Raises:
      ValueError: A value is out of range; the message names it.
    """

    max_bytes: int = 64 << 20
    deadline: float = 60.0
    allow_http: bool = False
    allow_private_hosts: bool = False
    http: HttpOptions = field(default_factory=HttpOptions)
    billing_project: str | None = None
    allowed_schemes: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        if isinstance(self.max_bytes, bool) or not isinstance(self.max_bytes, int) or self.max_bytes < 1:
            raise ValueError(f"max_bytes must be a whole number of at least 1, not {self.max_bytes!r}")
        seconds = isinstance(self.deadline, (int, float)) and not isinstance(self.deadline, bool)
        if not seconds or not math.isfinite(self.deadline) or self.deadline <= 0:
            raise ValueError(f"deadline must be a positive number of seconds, not {self.deadline!r}")
        for name in ("allow_http", "allow_private_hosts"):
            if not isinstance(getattr(self, name), bool):
                raise ValueError(f"{name} must be True or False, not {getattr(self, name)!r}")
        check_billing_project(self.billing_project)
        check_schemes(self.allowed_schemes)

    def identity(self) -> dict[str, Any]:
        """The options that decide which images can be fetched, for the plan's name; of headers only the names."""
        return {
            "max_bytes": self.max_bytes,
            "deadline": self.deadline,
            "allow_http": self.allow_http,
            "allow_private_hosts": self.allow_private_hosts,
            "http_headers": sorted(name.lower() for name, _ in self.http.headers),
            "user_agent": self.http.user_agent,
            "ignore_robots_tag": self.http.ignore_robots_tag,
            "allowed_schemes": None if self.allowed_schemes is None else sorted(set(self.allowed_schemes)),
        }

    def allows(self, location: str) -> bool:
        """Whether the scheme of a location is allowed."""
        return self.allowed_schemes is None or (scheme(location) or LOCAL) in self.allowed_schemes


def check_allowed(location: str, options: FetchOptions) -> None:
    """Checks that the scheme of a location is allowed.

    Raises:
      ImageError: ``scheme_not_allowed``.
    """
    if not options.allows(location):
        raise _error(Reason.SCHEME_NOT_ALLOWED, not_allowed(scheme(location) or LOCAL))


@dataclass(frozen=True)
class Fetched:
    """An encoded image.

    Attributes:
      data: bytes, at least one.
      version: the object's generation, ``ETag``, ``Last-Modified`` or modification time in ns, if known.
    """

    data: bytes
    version: str | None


def fetch(location: str, options: FetchOptions) -> Fetched:
    """Fetches the bytes at an absolute local path or a URI.

    The deadline bounds network requests. It cannot interrupt the system calls of a local file (on a hanging mount), the
    system's name resolver, or one read of a Beam file system.

    Raises:
      ImageError: Stage ``fetch``; the detail holds no signed query.
    """
    check_allowed(location, options)
    kind = scheme(location)
    if kind is None:
        fetched = _local(location, options)
    elif kind == "gs":
        fetched = _gcs(location, options)
    elif kind in ("http", "https"):
        fetched = _http(location, options)
    elif kind == "s3":
        fetched = _s3(location, options)
    else:
        fetched = _beam(location, options)
    return not_empty(fetched)


def not_empty(fetched: Fetched) -> Fetched:
    """Returns ``fetched``; raises ``ImageError`` if it has no bytes."""
    if not fetched.data:
        raise _error(Reason.EMPTY_FILE, "the file has 0 bytes")
    return fetched


def _error(reason: Reason, detail: str) -> ImageError:
    return ImageError(Stage.FETCH, reason, detail)


def _too_many(found: str, options: FetchOptions) -> ImageError:
    return _error(Reason.TOO_MANY_BYTES, f"{found}, more than --max_bytes {options.max_bytes}")


_LOCAL_REASONS = {
    errno.ENOENT: Reason.NOT_FOUND,
    errno.ENOTDIR: Reason.NOT_FOUND,
    errno.ENAMETOOLONG: Reason.NOT_FOUND,
    errno.ELOOP: Reason.NOT_FOUND,
    errno.EACCES: Reason.FORBIDDEN,
    errno.EPERM: Reason.FORBIDDEN,
    errno.EISDIR: Reason.NOT_A_FILE,
    errno.ENXIO: Reason.NOT_A_FILE,  # a socket, or a FIFO or device without a peer
}


def _local(path: str, options: FetchOptions) -> Fetched:
    try:
        # Check before opening too, since opening a device may have effects.
        _check_file(path, os.stat(path), options)  # noqa: PTH116
        with open(path, "rb", opener=open_nonblocking) as file:
            status = os.fstat(file.fileno())
            _check_file(path, status, options)
            data = file.read(status.st_size + 1)
            if len(data) > status.st_size:  # the file is growing
                data += file.read(max(options.max_bytes + 1 - len(data), 0))
    except OSError as error:
        reason = _LOCAL_REASONS.get(error.errno or 0, Reason.FETCH_ERROR)
        raise _error(reason, error.strerror or type(error).__name__) from error
    except ValueError as error:  # a NUL, or a character outside the file system's encoding
        raise _error(Reason.NOT_FOUND, f"no file can have this name: {error}") from error
    if len(data) > options.max_bytes:
        raise _too_many("a growing file", options)
    return Fetched(data, str(status.st_mtime_ns))


def _check_file(path: str, status: os.stat_result, options: FetchOptions) -> None:
    if (kind := kind_of_other(path, status)) is not None:
        raise _error(Reason.NOT_A_FILE, kind)
    if status.st_size > options.max_bytes:
        raise _too_many(f"{status.st_size} bytes", options)


def _http(url: str, options: FetchOptions) -> Fetched:
    if not options.allow_http:
        raise _error(Reason.NOT_ALLOWED, "http and https URLs need --allow_http")
    from beamlabel.transforms.loading import http_steps

    data, version = http_steps.get(
        url,
        max_bytes=options.max_bytes,
        deadline=options.deadline,
        allow_private_hosts=options.allow_private_hosts,
        options=options.http,
        allowed_schemes=options.allowed_schemes,
    )
    return Fetched(data, version)


def http_requests(location: str, options: FetchOptions) -> HttpFetch | None:
    """The requests for an image on the web, as an alternative to waiting in ``fetch``.

    None if the image is elsewhere, or if ``fetch`` would refuse it without a request.
    """
    if not options.allow_http or scheme(location) not in ("http", "https") or not options.allows(location):
        return None
    from beamlabel.transforms.loading.http_fetch import HttpFetch

    try:
        return HttpFetch(
            location,
            max_bytes=options.max_bytes,
            deadline=options.deadline,
            allow_private_hosts=options.allow_private_hosts,
            options=options.http,
            allowed_schemes=options.allowed_schemes,
        )
    except ImageError:
        return None


def _gcs(uri: str, options: FetchOptions) -> Fetched:
    from beamlabel.transforms.loading import gcs_fetch
    from beamlabel.transforms.storage import gcs_client

    try:
        bucket, name = gcs_client.parse("gs" + uri[2:])  # schemes may be in capitals
    except ValueError as error:
        raise _error(Reason.INVALID_URI, str(error)) from error
    if not name:
        raise _error(Reason.NOT_A_FILE, "the URI is a bucket, not an object")
    data, version = gcs_fetch.get(
        bucket,
        name,
        max_bytes=options.max_bytes,
        deadline=options.deadline,
        billing_project=options.billing_project,
    )
    return Fetched(data, version)


def _s3(uri: str, options: FetchOptions) -> Fetched:
    from beamlabel.transforms.loading import s3_fetch

    if beam_setup.is_lacking("s3"):
        raise _error(Reason.UNSUPPORTED_SCHEME, beam_setup.lacking("s3"))
    data, version = s3_fetch.get(uri, max_bytes=options.max_bytes, deadline=options.deadline)
    return Fetched(data, version)


def _beam(uri: str, options: FetchOptions) -> Fetched:
    from apache_beam.io.filesystem import BeamIOError

    try:
        filesystem = beam_setup.filesystems().get_filesystem(uri)
    except (ValueError, BeamIOError) as error:
        detail = beam.lacking_library(uri, error) or (f"no file system is registered for {scheme(uri)}://")
        raise _error(Reason.UNSUPPORTED_SCHEME, detail) from error
    body_end = time.monotonic() + options.deadline
    try:
        return retried(
            lambda: _beam_attempt(filesystem, uri, options, body_end),
            beam.is_transient,
            options.deadline * LAST_START,
        )
    except ImageError:
        raise
    except Exception as error:  # each plug-in has its own exceptions
        if (lacking := beam.lacking_library(uri, error)) is not None:
            raise _error(Reason.UNSUPPORTED_SCHEME, lacking) from error
        raise _beam_error(filesystem, uri, error) from error


def _beam_attempt(filesystem: Any, uri: str, options: FetchOptions, end: float) -> Fetched:
    from apache_beam.io.filesystem import CompressionTypes

    # Read before the bytes: if the object is replaced in between, the version is the old one.
    updated = None
    with suppress(Exception):  # a plug-in may not support it, and `open` reports errors of the file
        updated = filesystem.metadata(uri).last_updated_in_seconds
    # Uncompressed, or Beam would decompress a `.gz` without a cap.
    with filesystem.open(uri, compression_type=CompressionTypes.UNCOMPRESSED) as file:
        return Fetched(_read(file, options, end), str(updated) if updated else None)


def _read(file: BinaryIO, options: FetchOptions, end: float) -> bytes:
    body = Capped(options.max_bytes, options.deadline, end)
    while chunk := file.read(min(_CHUNK, options.max_bytes + 1)):
        body.write(chunk)
    return body.getvalue()


def _beam_error(filesystem: Any, uri: str, error: Exception) -> ImageError:
    try:
        there = not isinstance(error, FileNotFoundError) and filesystem.exists(uri)
    except Exception:  # the first error is more informative
        there = True
    if not there:
        return _error(Reason.NOT_FOUND, "no such file")
    if beam.is_forbidden(error):
        return _error(Reason.FORBIDDEN, "reading it is not allowed")
    return _error(Reason.FETCH_ERROR, f"{type(error).__name__}: {error}".replace(uri, public_uri(uri)))
