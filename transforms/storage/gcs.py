"""Objects of Google Cloud Storage. Every function takes ``gs://`` URIs; see ``beamlabel.transforms.storage``."""

from __future__ import annotations

import errno
import io
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, NamedTuple, TypeVar

from beamlabel.transforms.storage import gcs_client
from beamlabel.transforms.storage.buckets import gcs_batch
from beamlabel.transforms.storage.buckets.checksum import Crc32c
from beamlabel.transforms.storage.buckets.content_types import content_type
from beamlabel.transforms.storage.listing.in_ranges import Page, list_in_ranges
from beamlabel.transforms.storage.listing.page_tokens import PageTokens
from beamlabel.transforms.storage.listing.stored_file import StoredFile
from beamlabel.transforms.storage.patterns import (
    Directory,
    entries_of_page,
    lost,
    match_objects,
    without_directories,
)
from beamlabel.transforms.storage.ranged_file import RangedFile

if TYPE_CHECKING:
    from google.cloud.storage import Blob

_READ_SIZE = 4 << 20
"""Bytes of one range request: few round trips to stream a text, and little excess for a Parquet footer."""

PAGE_SIZE = 1000
"""Objects in one page of a listing, the service's maximum."""

_BATCH_THREADS = 16
"""Concurrent batch requests."""

_AT_ONCE = 10_000
"""Names of files to delete that are in memory at a time."""

_WRITER = "beamlabel-writer"
"""Metadata key of an object: identifies the conditional write that created it."""

_T = TypeVar("_T")


def _shared(deadline: float | None = None) -> dict[str, Any]:
    """Arguments of every request; ``deadline``: seconds after which no try begins, and the limit of each try."""
    if deadline is None:
        return {"retry": gcs_client.RETRY, "timeout": gcs_client.TIMEOUT}
    timeout = tuple(min(seconds, deadline) for seconds in gcs_client.TIMEOUT)
    return {"retry": gcs_client.RETRY.with_timeout(deadline), "timeout": timeout}


def _blob(path: str, generation: int | None = None) -> Blob:
    bucket, name = gcs_client.parse(path)
    if not name:
        raise IsADirectoryError(errno.EISDIR, "the path is a bucket, not an object", path)
    return gcs_client.bucket(bucket).blob(name, generation=generation)


def stat(path: str) -> StoredFile:
    """The object at ``path``."""
    return _stored(path, _told(path))


def _told(path: str) -> Blob:
    blob = _blob(path)
    with gcs_client.errors(path):
        blob.reload(**_shared())
    return blob


def _stored(path: str, blob: Blob) -> StoredFile:
    return StoredFile(path, blob.size, str(blob.generation))


def below(directory: str) -> Iterator[StoredFile]:
    """All objects whose name begins with ``directory``."""
    return without_directories(_list(directory))


def glob(pattern: str) -> Iterator[StoredFile]:
    """The objects that match."""
    return match_objects(pattern, _list)


def _list(prefix: str, delimiter: str | None = None) -> Iterator[StoredFile]:
    """Lists objects in the order of their names, page by page, in parallel if there are many."""
    bucket, name = gcs_client.parse(prefix)
    start = f"gs://{bucket}/"

    def fetch(after: str | None, token: str | None) -> Page:
        with gcs_client.errors(prefix):
            listing = gcs_client.client().list_blobs(
                gcs_client.bucket(bucket),
                prefix=name or None,
                delimiter=delimiter,
                start_offset=None if after is None else after[len(start) :],
                page_token=token,
                fields="items(name,size,generation),nextPageToken",
                page_size=PAGE_SIZE,
                **_shared(),
            )
            # The raw answer: creating a Blob per item takes ten times as long as everything else.
            found = next(listing.pages).raw_page
        files = [
            StoredFile(start + item["name"], int(item["size"]), str(item["generation"]))
            for item in found.get("items", ())
        ]
        return Page(files, found.get("nextPageToken"))

    return list_in_ranges(fetch, start + name)


def entries(directory: str) -> Iterator[StoredFile | Directory]:
    """The direct entries of ``directory``, which ends in ``/``, page by page."""
    bucket, name = gcs_client.parse(directory)
    with gcs_client.errors(directory):
        listing = gcs_client.client().list_blobs(
            gcs_client.bucket(bucket),
            prefix=name or None,
            delimiter="/",
            fields="items(name,size,generation),prefixes,nextPageToken",
            page_size=PAGE_SIZE,
            **_shared(),
        )
        tokens = PageTokens(directory)
        for page in listing.pages:
            tokens.add(listing.next_page_token)
            files = [StoredFile(f"gs://{bucket}/{one.name}", one.size, str(one.generation)) for one in page]
            yield from entries_of_page(files, (f"gs://{bucket}/{prefix}" for prefix in page.prefixes))


def open_input(path: str, known: StoredFile | None = None) -> BinaryIO:
    """Opens the object for reading; requests its size unless it is known, so that a missing object fails here.

    All reads are of one generation, even if the object is replaced meanwhile. Without ``known``, a read of the whole
    object verifies its checksum and raises ``OSError`` at the end if it does not match.
    """
    checksum = None
    if known is not None and known.size is not None:
        file = known
    else:
        blob = _told(path)
        file, checksum = _stored(path, blob), None if blob.crc32c is None else Crc32c(blob.crc32c)
    generation = int(file.version or 0)

    def read_range(first: int, last: int) -> bytes:
        blob = _blob(path, generation)
        with gcs_client.errors(path):
            # Raw: size and ranges refer to the stored bytes, compressed or not.
            return blob.download_as_bytes(
                start=first, end=last, raw_download=True, checksum=None, **_shared()
            )

    return io.BufferedReader(RangedFile(path, file.size or 0, read_range, file.version, checksum), _READ_SIZE)


def read_bytes(path: str) -> bytes:
    """The stored bytes of the whole object, in one request, with the checksum verified."""
    blob = _blob(path)
    with gcs_client.errors(path):
        return blob.download_as_bytes(raw_download=True, **_shared())


def read_part(path: str, start: int, size: int, version: str | None) -> bytes:
    """A range of the object; another generation counts as missing."""
    blob = _blob(path, None if version is None else int(version))
    try:
        with gcs_client.errors(path):
            return blob.download_as_bytes(
                start=start, end=start + size - 1, raw_download=True, checksum=None, **_shared()
            )
    except OSError as error:
        if getattr(error.__cause__, "code", None) != 416:
            raise
        return b""  # the object ends before


def get_file(path: str, local_path: Path) -> None:
    """Downloads to a local file in one request with the checksum verified; resumes after a broken connection."""
    blob = _blob(path)
    with gcs_client.errors(path):
        blob.download_to_filename(str(local_path), raw_download=True, checksum="crc32c", **_shared())


def write_bytes(path: str, data: bytes) -> None:
    """Uploads the object; readers see the old object or the new one."""
    _upload(_blob(path), path, data)


def _upload(blob: Blob, path: str, data: bytes, deadline: float | None = None, **conditions: int) -> None:
    with gcs_client.errors(path):
        blob.upload_from_string(
            data,
            content_type=content_type(path),
            checksum="crc32c",
            **conditions,
            **_shared(deadline),
        )


def create_if_absent(path: str, data: bytes) -> bool:
    """Uploads the object if it does not exist."""
    return exchange(path, data, 0) is not None


def exchange(path: str, data: bytes, generation: int, deadline: float | None = None) -> int | None:
    """Uploads the object if it still has that generation; 0: if it does not exist.

    Args:
      path, data: of the new object.
      generation: of the object to replace.
      deadline: seconds after which no other try begins; None: as for every request.

    Returns:
      The generation that this call wrote; None if the condition did not hold.
    """
    blob = _blob(path)
    writer = uuid.uuid4().hex
    blob.metadata = {_WRITER: writer}
    try:
        _upload(blob, path, data, deadline, if_generation_match=generation)
    except OSError as error:
        if getattr(error.__cause__, "code", None) != 412:
            raise
        # Our own first try may have succeeded and its answer been lost. Comparing the data is not enough: other writers
        # may write the same.
        return _generation_by(writer, path)
    return int(blob.generation)


def _generation_by(writer: str, path: str) -> int | None:
    """The generation of the object, if that writer wrote it."""
    blob = _blob(path)
    try:
        with gcs_client.errors(path):
            blob.reload(**_shared())
    except FileNotFoundError:
        return None
    return int(blob.generation) if (blob.metadata or {}).get(_WRITER) == writer else None


class ReadObject(NamedTuple):
    """An object's bytes, generation, and times of writing and reading: the server's clock, seconds since 1970."""

    data: bytes
    generation: int
    updated_at: float
    read_at: float


def read_object(path: str) -> ReadObject:
    """Reads one generation of an object, with its times."""
    while True:
        blob = _blob(path)
        with gcs_client.errors(path):
            blob.reload(**_shared())
        generation = int(blob.generation)
        try:
            with gcs_client.errors(path):
                data = _blob(path, generation).download_as_bytes(raw_download=True, **_shared())
        except FileNotFoundError:
            continue  # replaced or deleted in between
        return ReadObject(data, generation, blob.updated.timestamp(), gcs_client.server_time())


def delete_generation(path: str, generation: int, deadline: float | None = None) -> None:
    """Deletes the object unless another generation replaced it; ``deadline`` as for ``exchange``."""
    try:
        with gcs_client.errors(path):
            _blob(path, generation).delete(**_shared(deadline))
    except FileNotFoundError:
        pass


def copy(source: str, target: str) -> None:
    """Copies an object within the storage system."""
    old, new = _blob(source), _blob(target)
    with gcs_client.errors(source):
        # Large objects, and objects that change location or class, take several calls.
        token, _, _ = new.rewrite(old, **_shared())
        while token is not None:
            token, _, _ = new.rewrite(old, token=token, **_shared())


def put_file(local_path: str, path: str) -> None:
    """Uploads the local file, then removes it."""
    blob = _blob(path)
    with gcs_client.errors(path):
        blob.upload_from_filename(local_path, content_type=content_type(path), checksum="crc32c", **_shared())
    Path(local_path).unlink(missing_ok=True)


def move(source: str, target: str) -> None:
    """Copies an object, then deletes the source; safe to repeat after a kill in between."""
    move_all({source: target})


def move_all(moves: Mapping[str, str]) -> None:
    """Copies many objects, then deletes the sources."""
    absent = _copied(moves)
    if gone := lost(moves, absent, _list):
        raise FileNotFoundError(
            errno.ENOENT, "the object exists neither at its old path nor at its new path", gone[0]
        )
    delete_all(moves.keys() - absent)


def copy_all(copies: Mapping[str, str]) -> None:
    """Copies many objects within the storage system."""
    if absent := _copied(copies):
        raise FileNotFoundError(errno.ENOENT, "no such object", min(absent))


def _copied(copies: Mapping[str, str]) -> set[str]:
    """Copies many objects; returns the missing ones."""
    absent: set[str] = set()

    def copy_one(pair: tuple[str, str]) -> None:
        try:
            copy(*pair)
        except FileNotFoundError:
            absent.add(pair[0])

    def ask(pair: tuple[str, str]) -> None:
        old, new = _blob(pair[0]), _blob(pair[1])
        old.bucket.copy_blob(old, new.bucket, new.name, timeout=gcs_client.TIMEOUT)

    absent.update(source for source, _ in _in_batches(copies.items(), ask, copy_one))
    return absent


def _in_batches(items: Iterable[_T], ask: Callable[[_T], object], do: Callable[[_T], object]) -> list[_T]:
    """Handles many objects in batch requests, and one by one those for which the batch failed.

    Args:
      items: the objects.
      ask: makes the call for an item within a batch.
      do: handles an item outside a batch, with the retries of any request.

    Returns:
      The items whose object the batch reported as missing.
    """
    client = gcs_client.client()
    waiting = list(items)
    chunks = [waiting[start : start + gcs_batch.CALLS] for start in range(0, len(waiting), gcs_batch.CALLS)]
    with ThreadPoolExecutor(_BATCH_THREADS) as threads:
        answers = list(threads.map(lambda chunk: _statuses(client, chunk, ask), chunks))
    told = [
        pair for chunk, found in zip(chunks, answers, strict=True) for pair in zip(chunk, found, strict=True)
    ]
    with ThreadPoolExecutor(gcs_client.POOL_SIZE) as threads:
        # A busy service refuses some of the calls; a service without batches, or without this call, refuses all.
        list(threads.map(do, [item for item, status in told if status != 404 and not 200 <= status < 300]))
    return [item for item, status in told if status == 404]


def _statuses(client: Any, chunk: Sequence[_T], ask: Callable[[_T], object]) -> list[int]:
    """The HTTP statuses of a batch; 0 for each item if the batch failed."""
    from google.api_core.exceptions import GoogleAPICallError

    if len(chunk) == 1:
        return [0]
    try:
        return gcs_batch.statuses(client, chunk, ask)
    except (GoogleAPICallError, ValueError):
        return [0] * len(chunk)


def delete(path: str) -> None:
    """Deletes the object."""
    blob = _blob(path)
    try:
        with gcs_client.errors(path):
            blob.delete(**_shared())
    except FileNotFoundError:
        pass


def delete_all(paths: Iterable[str]) -> None:
    """Deletes many objects."""
    names = iter(paths)
    while chunk := list(islice(names, _AT_ONCE)):
        _in_batches(chunk, lambda path: _blob(path).delete(timeout=gcs_client.TIMEOUT), delete)


def delete_tree(path: str) -> None:
    """Deletes all objects below ``path + "/"``, including the empty ones that stand for directories."""
    if not gcs_client.parse(path.rstrip("/"))[1]:
        raise ValueError(f"refusing to delete a whole bucket: {path!r}")
    delete_all(file.path for file in _list(path.rstrip("/") + "/"))
