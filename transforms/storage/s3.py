"""Objects of S3 and compatible servers, by ``s3://`` URIs; see ``beamlabel.transforms.storage``."""

from __future__ import annotations

import errno
import io
import uuid
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO

from beamlabel.transforms.storage import s3_client
from beamlabel.transforms.storage.buckets.content_types import content_type
from beamlabel.transforms.storage.errors import ReplacedError
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
from beamlabel.transforms.storage.s3_client import code_of, request, status_of

_READ_SIZE = 4 << 20
"""Bytes of one range request, as on ``gs://``."""

_PART_BYTES = 64 << 20
"""A larger object is written in parts of this size; readers see it after the last part."""

_COPY_BYTES = 5 << 30
"""The largest object that one request copies:
https://docs.aws.amazon.com/AmazonS3/latest/API/API_CopyObject.html."""

_DELETE_AT_ONCE = 1000
"""The most objects that one request deletes."""

_COPY_THREADS = 32

_BLOCK_BYTES = 1 << 20
"""Bytes of a download in memory at a time."""

_WITHOUT_ORDER = "--x-s3"
"""Suffix of the names of directory buckets, whose listings have no order and always begin at the beginning:
https://docs.aws.amazon.com/AmazonS3/latest/API/API_ListObjectsV2.html."""

_WRITER = "beamlabel-writer"
"""Metadata key of an object: identifies the conditional write that created it."""


def _names(path: str) -> dict[str, str]:
    """Bucket and object, as arguments of a request."""
    bucket, name = s3_client.parse(path)
    if not name:
        raise IsADirectoryError(errno.EISDIR, "the path is a bucket, not an object", path)
    return {"Bucket": bucket, "Key": name}


def stat(path: str) -> StoredFile:
    """The object at ``path``."""
    names = _names(path)
    found = request(path, lambda client: client.head_object(**names))
    return StoredFile(path, found["ContentLength"], s3_client.version(found.get("ETag")))


def below(directory: str) -> Iterator[StoredFile]:
    """All objects whose name begins with ``directory``."""
    return without_directories(_list(directory))


def glob(pattern: str) -> Iterator[StoredFile]:
    """The objects that match."""
    return match_objects(pattern, _list)


def _list(prefix: str, delimiter: str | None = None) -> Iterator[StoredFile]:
    """Lists objects in the order of their names, page by page, in parallel if there are many."""
    bucket, name = s3_client.parse(prefix)
    start = f"s3://{bucket}/"

    def fetch(after: str | None, token: str | None) -> Page:
        asked = {"Bucket": bucket, "Prefix": name, "Delimiter": delimiter, "ContinuationToken": token}
        asked["StartAfter"] = None if after is None else after[len(start) :]
        given = {key: value for key, value in asked.items() if value is not None}
        page = request(prefix, lambda client: client.list_objects_v2(**given))
        files = [
            StoredFile(start + item["Key"], item["Size"], s3_client.version(item.get("ETag")))
            for item in page.get("Contents", ())
        ]
        return Page(files, page.get("NextContinuationToken") or None)

    return list_in_ranges(fetch, start + name, has_order=not bucket.endswith(_WITHOUT_ORDER))


def entries(directory: str) -> Iterator[StoredFile | Directory]:
    """The direct entries of ``directory``, which ends in ``/``, page by page."""
    for files, prefixes in _pages(directory, "/"):
        yield from entries_of_page(files, prefixes)


def _pages(prefix: str, delimiter: str) -> Iterator[tuple[list[StoredFile], list[str]]]:
    """The pages of a listing: the objects, and the common prefixes up to a delimiter as URIs."""
    bucket, name = s3_client.parse(prefix)
    asked = {"Bucket": bucket, "Prefix": name, "Delimiter": delimiter}
    tokens = PageTokens(prefix)
    while True:
        page = request(prefix, lambda client: client.list_objects_v2(**asked))
        tokens.add(page.get("NextContinuationToken"))
        yield (
            [
                StoredFile(f"s3://{bucket}/{item['Key']}", item["Size"], s3_client.version(item.get("ETag")))
                for item in page.get("Contents", ())
            ],
            [f"s3://{bucket}/{item['Prefix']}" for item in page.get("CommonPrefixes", ())],
        )
        if not page.get("NextContinuationToken"):
            return
        asked["ContinuationToken"] = page["NextContinuationToken"]


def open_input(path: str, known: StoredFile | None = None) -> BinaryIO:
    """Opens the object for reading; requests its size unless it is known, so that a missing object fails here.

    All reads are of one version; after the object is replaced, a read raises ``FileNotFoundError``.
    """
    file = known if known is not None and known.size is not None else stat(path)
    names = _versioned(path, file.version)

    def read(first: int, last: int) -> bytes:
        return _range(path, names, first, last)

    return io.BufferedReader(RangedFile(path, file.size or 0, read, file.version), _READ_SIZE)


def _versioned(path: str, version: str | None) -> dict[str, str]:
    """The request arguments of one version of an object."""
    return _names(path) | ({"IfMatch": f'"{version}"'} if version else {})


def _range(path: str, names: dict[str, str], first: int, last: int) -> bytes:
    asked = {**names, "Range": f"bytes={first}-{last}"}
    try:
        return request(path, lambda client: client.get_object(**asked)["Body"].read())
    except OSError as error:
        if status_of(error.__cause__ or error) != 412:
            raise
        raise ReplacedError(errno.ENOENT, "the object was replaced while it was read", path) from error


def read_part(path: str, start: int, size: int, version: str | None) -> bytes:
    """A range of the object."""
    try:
        return _range(path, _versioned(path, version), start, start + size - 1)
    except OSError as error:
        if status_of(error.__cause__ or error) != 416:
            raise
        return b""  # the object ends before


def read_bytes(path: str) -> bytes:
    """The whole object in one request."""
    names = _names(path)
    return request(path, lambda client: client.get_object(**names)["Body"].read())


def get_file(path: str, local_path: Path) -> None:
    """Downloads to a local file in one request."""
    names = _names(path)

    def once(client: Any) -> None:
        with local_path.open("wb") as file:
            for block in client.get_object(**names)["Body"].iter_chunks(_BLOCK_BYTES):
                file.write(block)

    request(path, once)


def write_bytes(path: str, data: bytes) -> None:
    """Uploads the object; readers see the old object or the new one."""
    names = _names(path)
    request(path, lambda client: client.put_object(**names, Body=data, ContentType=content_type(path)))


def create_if_absent(path: str, data: bytes) -> bool:
    """Uploads the object if it does not exist (``If-None-Match: *``).

    S3 supports that condition since 2024. Another server either refuses it (501) or ignores it: then only the look
    before protects the object, and two concurrent writers may both win.
    """
    names = _names(path)
    writer = uuid.uuid4().hex
    facts = {"Body": data, "ContentType": content_type(path), "Metadata": {_WRITER: writer}}
    try:
        stat(path)
    except FileNotFoundError:
        pass
    else:
        return False
    try:
        request(path, lambda client: client.put_object(**names, **facts, IfNoneMatch="*"))
    except OSError as error:
        cause = error.__cause__ or error
        if status_of(cause) == 412:
            # Our own first try may have succeeded and its answer been lost. Comparing the data is not enough: other
            # writers may write the same.
            return _writer_of(path) == writer
        if status_of(cause) != 501 and code_of(cause) != "NotImplemented":
            raise
        request(path, lambda client: client.put_object(**names, **facts))
    return True


def _writer_of(path: str) -> str | None:
    """The identifier of the call that wrote the object."""
    names = _names(path)
    try:
        return request(path, lambda client: client.head_object(**names))["Metadata"].get(_WRITER)
    except FileNotFoundError:
        return None


def copy(source: str, target: str) -> None:
    """Copies an object within the storage system."""
    old, new = _names(source), _names(target)
    try:
        request(source, lambda client: client.copy_object(CopySource=old, **new))
    except OSError:
        # Larger objects are copied in parts. They are rare, so the size is requested only after an error.
        if (stat(source).size or 0) <= _COPY_BYTES:
            raise
        request(source, lambda client: client.copy(old, new["Bucket"], new["Key"]))


def put_file(local_path: str, path: str) -> None:
    """Uploads the local file, then removes it."""
    names = _names(path)

    def once(client: Any) -> None:
        from boto3.s3.transfer import TransferConfig

        parts = TransferConfig(multipart_threshold=_PART_BYTES, multipart_chunksize=_PART_BYTES)
        with Path(local_path).open("rb") as source:
            client.upload_fileobj(
                source,
                names["Bucket"],
                names["Key"],
                ExtraArgs={"ContentType": content_type(path)},
                Config=parts,
            )

    request(path, once)
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

    with ThreadPoolExecutor(_COPY_THREADS) as threads:
        list(threads.map(copy_one, copies.items()))
    return absent


def delete(path: str) -> None:
    """Deletes the object."""
    names = _names(path)
    with suppress(FileNotFoundError):  # some servers raise it
        request(path, lambda client: client.delete_object(**names))


def delete_tree(path: str) -> None:
    """Deletes all objects below ``path + "/"``, including the empty ones that stand for directories."""
    if not s3_client.parse(path.rstrip("/"))[1]:
        raise ValueError(f"refusing to delete a whole bucket: {path!r}")
    delete_all(file.path for file in _list(path.rstrip("/") + "/"))


def delete_all(paths: Iterable[str]) -> None:
    """Deletes many objects, up to 1,000 per request."""
    names = iter(paths)
    while chunk := list(islice(names, _DELETE_AT_ONCE)):
        buckets = defaultdict(list)
        for path in chunk:
            bucket, name = s3_client.parse(path)
            buckets[bucket].append({"Key": name})
        for bucket, objects in buckets.items():
            _delete_all(chunk[0], bucket, objects)


def _delete_all(path: str, bucket: str, objects: list[dict[str, str]]) -> None:
    answer = request(
        path, lambda client: client.delete_objects(Bucket=bucket, Delete={"Objects": objects, "Quiet": True})
    )
    if failed := answer.get("Errors"):
        first = failed[0]
        code = errno.EACCES if first.get("Code") == "AccessDenied" else errno.EIO
        message = f"{first.get('Code')}: {first.get('Message')} ({len(failed)} of {len(objects)} objects not deleted)"
        raise OSError(code, message, f"s3://{bucket}/{first.get('Key')}")
