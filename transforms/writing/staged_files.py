"""Writes, hashes and stages the files of a unit, under names made from their content."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from beamlabel.transforms import storage
from beamlabel.transforms.records import Failure, FileRecord, Skipped, WorkUnit
from beamlabel.transforms.rows import tf_examples
from beamlabel.transforms.rows.schema import OutputSpec, arrow_schema, computed_metadata
from beamlabel.transforms.rows.tfrecord import write_records
from beamlabel.transforms.rows.times import iso_time
from beamlabel.transforms.secrets.text import public_text
from beamlabel.transforms.storage.uris import encodable, public_uri, scheme
from beamlabel.transforms.worker.allocators import release_unused_arrow_memory
from beamlabel.transforms.writing.unit_rows import UnitRows
from beamlabel.transforms.writing.unit_summary import Summarizer

# A row group is held in memory until it is written.
ROW_GROUP_BYTES = 2 << 20
# The writer holds several buffers of a page; the format recommends 8 KB.
DATA_PAGE_BYTES = 128 << 10
_HASH_BLOCK_BYTES = 1 << 20
# Columns with repeated values; for other columns a dictionary only adds cost.
_DICTIONARY_COLUMNS = ("label", "labels.list.element", "format", "module_fingerprint", "preprocessing_id")
# JSON does not escape these, but readers such as str.splitlines end a line there.
_LINE_ENDS = {ord(end): f"\\u{ord(end):04x}" for end in "\x85\u2028\u2029"}


def write_data(file: Any, batches: Iterable[pa.RecordBatch], spec: OutputSpec) -> None:
    """Writes a data shard to an open binary file.

    Parquet is compressed with zstd, in row groups of about 2 MB of Arrow data; the writer holds several times that.
    """
    if spec.format == "tfrecord":
        serialized = (example for batch in batches for example in tf_examples.encode(batch))
        write_records(file, serialized, compression=spec.compression)
        return
    dictionary = [*_DICTIONARY_COLUMNS, *(name for name, _ in spec.kept_fields)]
    with pq.ParquetWriter(
        file,
        arrow_schema(spec),
        compression="zstd",
        use_dictionary=dictionary,
        data_page_size=DATA_PAGE_BYTES,
    ) as writer:
        for group in _row_groups(batches):
            writer.write_table(group, row_group_size=group.num_rows)
            release_unused_arrow_memory()


def failure_line(failure: Failure, failed_at: int) -> bytes:
    """A failure as a line of its shard, see ``json_line``; ``failed_at`` is in microseconds since 1970."""
    return json_line({**_failure_fields(failure), "failed_at": iso_time(failed_at)})


def json_line(value: Mapping[str, str | int | None]) -> bytes:
    """One line of JSON in UTF-8, whose only line end is its last byte."""
    return json.dumps(value, ensure_ascii=False).translate(_LINE_ENDS).encode() + b"\n"


def _failure_fields(failure: Failure) -> dict[str, str | int | None]:
    value: dict[str, str | int | None] = {
        "uri": None if failure.uri is None else public_uri(failure.uri),
        "ref_id": failure.ref_id,
        "image_id": failure.image_id,
        "stage": failure.stage.value,
        "reason": failure.reason.value,
        "detail": public_text(failure.detail),
        "source_bytes": failure.source_bytes,
        "source_version": failure.source_version,
        "content_hash": failure.content_hash,
    }
    return {name: encodable(item) if isinstance(item, str) else item for name, item in value.items()}


def _row_groups(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.Table]:
    group: list[pa.RecordBatch] = []
    nbytes = 0
    for batch in batches:
        group.append(batch)
        nbytes += batch.nbytes
        if nbytes >= ROW_GROUP_BYTES:
            yield pa.Table.from_batches(group)
            group, nbytes = [], 0
    if group:
        yield pa.Table.from_batches(group)


def stage_data(rows: UnitRows, spec: OutputSpec, staging_dir: str, unit_id: str) -> FileRecord:
    """Stages a unit's data shard in input order; no rows can be added afterwards."""
    computed_by = sorted(rows.computed_by)
    spec = _as_computed(spec, computed_by)
    with temporary_file(staging_dir) as path:
        with path.open("wb") as file:
            write_data(file, rows.in_order(), spec)
        staged = stage_file(path, staging_dir, f"shards/{unit_id}", spec.file_ending, "data", len(rows))
    return dataclasses.replace(staged, computed_by=", ".join(computed_by) or None)


def _as_computed(spec: OutputSpec, computed_by: Sequence[str]) -> OutputSpec:
    """The spec with metadata that names the engines of the rows, usually one per unit."""
    return dataclasses.replace(spec, metadata=computed_metadata(spec.metadata, computed_by))


def stage_failures(failures: Sequence[Failure], failed_at: int, staging_dir: str, unit_id: str) -> FileRecord:
    """Stages a unit's failures, in the given order; ``failed_at``: see ``failure_line``."""
    with temporary_file(staging_dir) as path:
        with path.open("wb") as file:
            file.writelines(failure_line(failure, failed_at) for failure in failures)
        return stage_file(path, staging_dir, f"failures/{unit_id}", "jsonl", "failures", len(failures))


def is_worth_telling(skipped: Skipped) -> bool:
    """Whether the next run can recognize the image by size and version, which it cannot for web images."""
    return skipped.source_version is not None and scheme(skipped.ref.location) not in ("http", "https")


def stage_unchanged(touched: Sequence[Skipped], seen_at: int, staging_dir: str, unit_id: str) -> FileRecord:
    """Stages the new versions of images that an earlier run handled, in input order.

    Args:
      touched: the images.
      seen_at: time of this run, in microseconds since 1970.
      staging_dir: of the run.
      unit_id: of the unit.
    """
    with temporary_file(staging_dir) as path:
        with path.open("wb") as file:
            for one in sorted(touched, key=lambda skipped: skipped.ref.row):
                value = {"image_id": one.ref.image_id, "source_bytes": one.source_bytes}
                value |= {"source_version": one.source_version, "content_hash": one.content_hash}
                value |= {"seen_at": iso_time(seen_at)}
                file.write(json_line(value))
        return stage_file(path, staging_dir, f"unchanged/{unit_id}", "jsonl", "unchanged", len(touched))


def stage_summary(
    summarizer: Summarizer, failures: Sequence[Failure], staging_dir: str, unit: WorkUnit
) -> FileRecord:
    """Stages the summary of a unit for the report."""
    summary = summarizer.finish(map(_failure_fields, failures))
    content = summary.to_json()
    sha256 = hashlib.sha256(content).hexdigest()
    name = f"summaries/{unit.unit_id}-{sha256[:16]}.json"
    storage.write_bytes(storage.join(staging_dir, *name.split("/")), content)
    return FileRecord(name, "summary", len(summary.rows), len(content), sha256)


@contextmanager
def temporary_file(staging_dir: str) -> Iterator[Path]:
    """A temporary file beside its final path, so that moving it is a rename."""
    parent = None
    if storage.is_local(staging_dir):
        parent = Path(storage.absolute(staging_dir))
        storage.make_directory(staging_dir)
    with tempfile.TemporaryDirectory(prefix="tmp-", dir=parent) as directory:
        yield Path(directory) / "file"


def stage_file(path: Path, staging_dir: str, stem: str, ending: str, kind: str, rows: int) -> FileRecord:
    """Stages a finished file under a name made from its content."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(_HASH_BLOCK_BYTES):
            digest.update(block)
    sha256, size = digest.hexdigest(), path.stat().st_size
    name = f"{stem}-{sha256[:16]}.{ending}"
    storage.put_file(str(path), storage.join(staging_dir, *name.split("/")))
    return FileRecord(name=name, kind=kind, rows=rows, bytes=size, sha256=sha256)
