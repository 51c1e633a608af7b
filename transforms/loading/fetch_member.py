"""Fetches one image's bytes from a range of an archive: a local file, ``gs://``, ``s3://``, or Beam's file systems."""

from __future__ import annotations

import os

from beamlabel.transforms import storage
from beamlabel.transforms.archive_member import Member
from beamlabel.transforms.inputs.archives import zip as zips
from beamlabel.transforms.inputs.archives.entries import member_stat
from beamlabel.transforms.loading.fetch import Fetched, FetchOptions
from beamlabel.transforms.records import ImageError, Reason, Stage
from beamlabel.transforms.storage.errors import ReplacedError
from beamlabel.transforms.storage.uris import scheme

_CHANGED = "the archive has changed since the run was planned"


def fetch_member(member: Member, options: FetchOptions) -> Fetched:
    """Fetches the bytes of a member of an archive.

    Raises:
      ImageError: Stage ``fetch``; also if the archive no longer has the planned version.
    """
    if member.size > options.max_bytes:
        detail = f"{member.size} bytes, more than --max_bytes {options.max_bytes}"
        raise ImageError(Stage.FETCH, Reason.TOO_MANY_BYTES, detail)
    if not member.size:
        raise ImageError(Stage.FETCH, Reason.EMPTY_FILE, "the member has 0 bytes")
    if member.zipped is None:
        data = _read(member, member.offset, member.size, options)
        if len(data) != member.size:
            raise ImageError(Stage.FETCH, Reason.TRUNCATED, "the archive ends within this member")
    else:
        if member.zipped.packed_size > 2 * options.max_bytes:
            detail = f"{member.zipped.packed_size} compressed bytes, more than twice --max_bytes {options.max_bytes}"
            raise ImageError(Stage.FETCH, Reason.TOO_MANY_BYTES, detail)
        data = zips.unpacked(_Ranges(member, options, *zips.packed_range(member)), member)
    return Fetched(data, member_stat(member)[1])


class _Ranges:
    """The archive as a ``Window``: reads one range first, and others on demand."""

    end: int | None = None

    def __init__(self, member: Member, options: FetchOptions, start: int, size: int) -> None:
        self._member, self._options = member, options
        self._start, self._data = start, _read(member, start, size, options)

    def read(self, offset: int, size: int) -> bytes:
        """Reads bytes, see ``Window``."""
        place = offset - self._start
        if place >= 0 and place + size <= len(self._data):
            return self._data[place : place + size]
        known = self._data[place : place + size] if place >= 0 else b""
        return known + _read(self._member, offset + len(known), size - len(known), self._options)


def _read(member: Member, start: int, size: int, options: FetchOptions) -> bytes:
    """Reads a range of the archive, fewer bytes if it ends before."""
    kind = scheme(member.archive)
    if kind == "gs":
        return _gcs(member, start, size, options)
    try:
        return _local(member, start, size) if kind is None else _stored(member, start, size)
    except FileNotFoundError as error:
        raise ImageError(Stage.FETCH, Reason.NOT_FOUND, "the archive no longer exists") from error
    except PermissionError as error:
        raise ImageError(Stage.FETCH, Reason.FORBIDDEN, "no permission to read the archive") from error
    except (OSError, ValueError) as error:
        raise ImageError(Stage.FETCH, Reason.FETCH_ERROR, f"{type(error).__name__}: {error}") from error


def _local(member: Member, start: int, size: int) -> bytes:
    file = os.open(member.archive, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    try:
        _check(member, str(os.fstat(file).st_mtime_ns))
        data = os.pread(file, size, start)
        while len(data) < size and (more := os.pread(file, size - len(data), start + len(data))):
            data += more
        return data
    finally:
        os.close(file)


def _stored(member: Member, start: int, size: int) -> bytes:
    try:
        return storage.read_part(member.archive, start, size, member.archive_version)
    except ReplacedError as error:
        raise ImageError(Stage.FETCH, Reason.FETCH_ERROR, _CHANGED) from error


def _check(member: Member, version: str | None) -> None:
    if member.archive_version is not None and version != member.archive_version:
        raise ImageError(Stage.FETCH, Reason.FETCH_ERROR, _CHANGED)


def _gcs(member: Member, start: int, size: int, options: FetchOptions) -> bytes:
    from beamlabel.transforms.loading import gcs_fetch
    from beamlabel.transforms.storage import gcs_client

    bucket, name = gcs_client.parse("gs" + member.archive[2:])
    part = gcs_fetch.Part(start, start + size, member.archive_version)
    try:
        data, _ = gcs_fetch.get(
            bucket,
            name,
            max_bytes=size,
            deadline=options.deadline,
            part=part,
            billing_project=options.billing_project,
        )
    except ImageError as error:
        if error.reason is Reason.NOT_FOUND:
            raise ImageError(
                Stage.FETCH, Reason.NOT_FOUND, f"the archive no longer exists, or {_CHANGED}"
            ) from error
        raise
    return data
