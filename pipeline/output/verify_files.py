"""Verifies one file of a result against its entry in the manifest."""

from __future__ import annotations

import hashlib
import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, BinaryIO

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from beamlabel.transforms import storage
from beamlabel.transforms.records import Reason
from beamlabel.transforms.rows import metadata_keys, schema
from beamlabel.transforms.rows.deleted import DELETED_SCHEMA
from beamlabel.transforms.rows.schema import (
    OutputSpec,
    arrow_schema,
    computed_metadata,
    own_columns_by_metadata,
)
from beamlabel.transforms.rows.tfrecord import read_records
from beamlabel.transforms.shapes import parse

_BLOCK_BYTES = 1 << 20
_BATCH_ROWS = 4096
_VERSION_1_FAILURE_KEYS = {"uri", "ref_id", "stage", "reason", "detail"}
_FAILURE_KEYS = _VERSION_1_FAILURE_KEYS | {"image_id", "source_bytes", "source_version", "content_hash"}
_UNCHANGED_KEYS = {"image_id", "source_bytes", "source_version", "content_hash"}
_REASONS = {reason.value for reason in Reason}


@dataclass
class Checked:
    """The result of checking a file.

    Attributes:
      problems: in words, each with the file's name.
      reasons: counts of a failure shard; None if it could not be read, or for data.
      schema: of a Parquet shard, without its metadata.
      bytes_read: of the file.
    """

    problems: list[str] = field(default_factory=list)
    reasons: Counter[str] | None = None
    schema: pa.Schema | None = None
    bytes_read: int = 0


def check_file(
    output: str,
    file: Mapping[str, Any],
    there: storage.StoredFile,
    metadata: Mapping[str, str],
    *,
    quick: bool,
) -> Checked:
    """Reads a file and compares it.

    Args:
      output: the result's directory, absolute.
      file: the file's entry in the manifest.
      there: its entry in a listing.
      metadata: the manifest's ``metadata``.
      quick: compare only sizes, Parquet footers and failures, and hash nothing.
    """
    checked = Checked()
    name, size = file["name"], there.size
    try:
        if size not in (None, file["bytes"]):
            checked.problems.append(f"{name}: {size} bytes, the manifest says {file['bytes']}")
        if quick and file["kind"] in ("data", "deleted"):
            if not _is_parquet(name):
                return checked
            with storage.open_input(there.path, there) as stream:
                checked.problems += _check_columns(stream, file, metadata, checked, quick=True)
            return checked
        with _hashed(there) as (stream, sha256, length):
            checked.bytes_read = length
            if not quick and sha256 != file["sha256"]:
                checked.problems.append(
                    f"{name}: its SHA-256 is {sha256}, the manifest says {file['sha256']}"
                )
            checked.problems += _check_content(stream, file, metadata, checked)
    except (OSError, ValueError, pa.ArrowException) as error:
        checked.problems.append(f"{name}: cannot be read: {' '.join(str(error).split())}")
    return checked


def _is_parquet(name: str) -> bool:
    return name.endswith(".parquet")


@contextmanager
def _hashed(file: storage.StoredFile) -> Iterator[tuple[BinaryIO, str, int]]:
    """A file's bytes, their SHA-256 and their number; a remote file is read once, into a temporary file."""
    digest, length = hashlib.sha256(), 0
    with storage.open_input(file.path, file) as source, tempfile.TemporaryFile() as copy:
        local = storage.is_local(file.path)
        while block := source.read(_BLOCK_BYTES):
            digest.update(block)
            length += len(block)
            if not local:
                copy.write(block)
        stream = source if local else copy
        stream.seek(0)
        yield stream, digest.hexdigest(), length


def _check_content(
    stream: BinaryIO, file: Mapping[str, Any], metadata: Mapping[str, str], checked: Checked
) -> Iterator[str]:
    if file["kind"] == "failures":
        yield from _check_failures(stream, file, metadata, checked)
    elif file["kind"] == "unchanged":
        yield from _check_unchanged(stream, file)
    elif _is_parquet(file["name"]):
        yield from _check_columns(stream, file, metadata, checked, quick=False)
    else:
        yield from _check_rows(file, sum(1 for _ in read_records(stream)))


def _check_rows(file: Mapping[str, Any], rows: int) -> Iterator[str]:
    if rows != file["rows"]:
        yield f"{file['name']}: {rows} rows, the manifest says {file['rows']}"


def _check_failures(
    stream: BinaryIO, file: Mapping[str, Any], metadata: Mapping[str, str], checked: Checked
) -> Iterator[str]:
    keys = _VERSION_1_FAILURE_KEYS if _is_version_1(metadata) else _FAILURE_KEYS
    times = {"failed_at"}
    reasons: Counter[str] = Counter()
    for number, line in enumerate(stream, start=1):
        failure = parse(line)
        is_failure = isinstance(failure, dict) and failure.keys() - times == keys
        if not is_failure or not isinstance(failure["reason"], str):
            raise ValueError(f"line {number} is not a failure")
        if failure["reason"] not in _REASONS:
            yield f"{file['name']}: line {number}: {failure['reason']!r} is not a known reason"
        reasons[failure["reason"]] += 1
    checked.reasons = reasons
    yield from _check_rows(file, reasons.total())


def _check_unchanged(stream: BinaryIO, file: Mapping[str, Any]) -> Iterator[str]:
    rows = 0
    for number, line in enumerate(stream, start=1):
        value = parse(line)
        if not isinstance(value, dict) or value.keys() - {"seen_at"} != _UNCHANGED_KEYS:
            raise ValueError(f"line {number} does not describe an image")
        rows += 1
    yield from _check_rows(file, rows)


def _check_columns(
    stream: BinaryIO, file: Mapping[str, Any], metadata: Mapping[str, str], checked: Checked, *, quick: bool
) -> Iterator[str]:
    if file["kind"] == "data":
        yield from _check_parquet(stream, file, metadata, checked, quick=quick)
        return
    with pq.ParquetFile(stream, buffer_size=_BLOCK_BYTES, pre_buffer=False) as parquet:
        yield from _check_rows(file, parquet.metadata.num_rows)
        found = parquet.schema_arrow
        if not found.remove_metadata().equals(DELETED_SCHEMA):
            yield f"{file['name']}: its columns differ from those of tombstones: {_difference(found, DELETED_SCHEMA)}"
        for batch in () if quick else parquet.iter_batches(_BATCH_ROWS):
            batch.validate(full=True)


def _check_parquet(
    stream: BinaryIO, file: Mapping[str, Any], metadata: Mapping[str, str], checked: Checked, *, quick: bool
) -> Iterator[str]:
    name = file["name"]
    with pq.ParquetFile(stream, buffer_size=_BLOCK_BYTES, pre_buffer=False) as parquet:
        yield from _check_rows(file, parquet.metadata.num_rows)
        found = parquet.schema_arrow
        checked.schema = found.remove_metadata()
        yield from _check_metadata(file, found, metadata)
        if quick:
            return
        rows = 0
        same: dict[str, set[Any]] = {
            column: set() for column in _same_in_every_row(metadata) if column in found.names
        }
        for batch in parquet.iter_batches(_BATCH_ROWS):
            batch.validate(full=True)
            rows += batch.num_rows
            for column, values in same.items():
                values.update(pc.unique(batch.column(column)).to_pylist())
        if rows != parquet.metadata.num_rows:
            yield f"{name}: {rows} rows, its footer says {parquet.metadata.num_rows}"
        for column, values in same.items():
            if values - {_same_in_every_row(metadata)[column]}:
                yield f"{name}: its column {column} differs from the manifest in some rows"


def _same_in_every_row(metadata: Mapping[str, str]) -> dict[str, str | None]:
    keys = {
        "module_fingerprint": metadata_keys.MODULE_FINGERPRINT,
        "preprocessing_id": metadata_keys.PREPROCESSING_ID,
        "module_handle": metadata_keys.MODULE_HANDLE,
    }
    return {column: metadata.get(key) for column, key in keys.items()}


def _check_metadata(file: Mapping[str, Any], there: pa.Schema, metadata: Mapping[str, str]) -> Iterator[str]:
    name = file["name"]
    computed_by = file["computed_by"].split(", ") if file.get("computed_by") else []
    expected = computed_metadata(metadata, computed_by)
    found = {key.decode(): value.decode() for key, value in (there.metadata or {}).items()}
    for key in sorted(expected.keys() | {key for key in found if key.startswith("beamlabel.")}):
        if found.get(key) != expected.get(key):
            yield f"{name}: its {key} is {found.get(key)!r}, the manifest says {expected.get(key)!r}"
    columns = arrow_schema(spec_of(there, metadata)).remove_metadata()
    if _is_version_1(metadata):
        columns = pa.schema([column for column in columns if column.name not in schema.SINCE_VERSION_2])
    if not there.remove_metadata().equals(columns):
        yield f"{name}: its columns differ from the manifest's metadata: {_difference(there, columns)}"


def _is_version_1(metadata: Mapping[str, str]) -> bool:
    return metadata.get(metadata_keys.SCHEMA_VERSION) == "1"


def spec_of(there: pa.Schema, metadata: Mapping[str, str]) -> OutputSpec:
    """The settings that determine a shard's columns, from its metadata; all other columns are kept ones."""
    num_classes = metadata.get(metadata_keys.NUM_CLASSES)
    dimension = metadata.get(metadata_keys.EMBEDDING_DIM)
    own = own_columns_by_metadata(metadata)
    return OutputSpec(
        kept_fields=tuple((column.name, column.type) for column in there if column.name not in own),
        has_labels=metadata_keys.LABELS_SHA256 in metadata,
        top_k=0 if num_classes is None else 1,
        num_classes=None if num_classes is None else int(num_classes),
        embedding_dim=None if dimension is None else int(dimension),
    )


def _difference(found: pa.Schema, expected: pa.Schema) -> str:
    here, there = ({str(column) for column in schema} for schema in (found, expected))
    return (
        f"extra: {sorted(here - there) or 'none'}, missing: {sorted(there - here) or 'none (another order)'}"
    )
