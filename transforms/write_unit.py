"""The sink: what became of one work unit → staged files and the unit's record.

A unit leaves in the staging folder::

    shards/UNIT-SHA.parquet    its rows, in input order; there even without a row
    failures/UNIT-SHA.jsonl    its failures; there only where there are any
    units/UNIT.json            its record, written last

The two kinds of files are named by their content: a bundle that is run twice writes the same bytes to the
same name, and two tries that differ (a file was there in one and gone in the other) cannot overwrite each
other's. The record alone has a name that two tries share; it is created only if absent, and whoever comes
second takes over the first one's. So a unit has one record at any time, every file that it names is
complete, and files that no record names are rubbish which is deleted with the staging folder.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import tempfile
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import apache_beam as beam
import pyarrow as pa
import pyarrow.parquet as pq
from apache_beam.metrics import Metrics
from apache_beam.transforms.window import GlobalWindows
from apache_beam.utils.windowed_value import WindowedValue

from transforms import examples, metrics, storage
from transforms.allocators import give_back_arrow, use_frugal_arrow_pool
from transforms.heartbeat import Heartbeat
from transforms.output_schema import OutputSpec, arrow_schema, computed_metadata
from transforms.records import Failure, FileRecord, Labeled, Prediction, UnitEnd, UnitRecord
from transforms.tally import Tally, new_tally
from transforms.tfrecord import write_records
from transforms.to_arrow import encodable
from transforms.unit_rows import CHUNK_ROWS, UnitRows
from transforms.uris import public_uri
from transforms.versions import SameVersionsCoder

# A group is held in memory until it is written.
ROW_GROUP_BYTES = 2 << 20
_HASH_BLOCK_BYTES = 1 << 20
# Columns whose values repeat; for the others a dictionary only costs.
_DICTIONARY_COLUMNS = ("label", "labels.list.element", "format", "module_fingerprint", "preprocessing_id")
# JSON leaves these as they are, but readers such as str.splitlines end a line there.
_LINE_ENDS = {ord(end): f"\\u{ord(end):04x}" for end in "\x85\u2028\u2029"}

beam.coders.registry.register_coder(UnitRecord, SameVersionsCoder)


def write_unit(
    end: UnitEnd,
    predictions: Iterable[Prediction],
    failures: Iterable[Failure],
    spec: OutputSpec,
    staging_dir: str,
) -> UnitRecord:
    """Stages the files of one unit, then its record.

    Args:
      end: the unit, and how many elements it sent.
      predictions, failures: all that became of them, in any order.
      spec: what is written.
      staging_dir: a local folder or a URI; see the module for what it holds.

    Returns:
      The record that is staged: another try's, if that was first.

    Raises:
      ValueError: the elements are not as many as the unit sent, or do not fit the spec.
      OSError: the staging folder cannot be written.
    """
    with UnitRows(spec, staging_dir) as rows:
        rows.add(list(predictions))
        return _write(end, rows, failures, spec, staging_dir)


def _write(
    end: UnitEnd, rows: UnitRows, failures: Iterable[Failure], spec: OutputSpec, staging_dir: str
) -> UnitRecord:
    failed = sorted(failures, key=lambda failure: failure.row)
    unit = end.unit
    files = [_stage_data(rows, spec, staging_dir, unit.unit_id)]
    if failed:
        files.append(_stage_failures(failed, staging_dir, unit.unit_id))
    record = UnitRecord(
        unit_id=unit.unit_id,
        input_path=unit.input_file.path,
        start=unit.start,
        stop=unit.stop,
        last=unit.last,
        file_rows=unit.file_rows,
        input=end.sent + end.skipped,
        predicted=len(rows),
        failed=dict(sorted(Counter(failure.reason.value for failure in failed).items())),
        skipped=end.skipped,
        files=tuple(files),
    )
    return stage_record(record, staging_dir)


def stage_record(record: UnitRecord, staging_dir: str) -> UnitRecord:
    """Says that a unit is done, whose files are staged; returns the record that holds: the first one.

    Raises:
      OSError: the staging folder cannot be written, or is gone.
    """
    content = json.dumps(record.to_json()).encode()
    if storage.create_if_absent(_record_path(staging_dir, record.unit_id), content):
        return record
    first = read_record(staging_dir, record.unit_id)
    if first is None:
        raise OSError(f"the record of unit {record.unit_id} was in {staging_dir} and is gone")
    return first


def staged_units(staging_dir: str) -> int:
    """How many units are done, by their records."""
    return sum(1 for _ in storage.match(storage.escape(storage.join(staging_dir, "units")) + "/"))


def read_record(staging_dir: str, unit_id: str) -> UnitRecord | None:
    """The record of a unit that is done, else None."""
    path = _record_path(staging_dir, unit_id)
    if not storage.exists(path):
        return None
    return UnitRecord.from_json(json.loads(storage.read_bytes(path)))


def write_data(file: Any, batches: Iterable[pa.RecordBatch], spec: OutputSpec) -> None:
    """Writes a data shard to an open binary file.

    Parquet is zstd, in row groups of about 2 MB of Arrow data; the writer holds several times that.
    """
    if spec.format == "tfrecord":
        serialized = (example for batch in batches for example in examples.encode(batch))
        write_records(file, serialized, compression=spec.compression)
        return
    dictionary = [*_DICTIONARY_COLUMNS, *(name for name, _ in spec.kept_fields)]
    with pq.ParquetWriter(file, arrow_schema(spec), compression="zstd", use_dictionary=dictionary) as writer:
        for group in _row_groups(batches):
            writer.write_table(group, row_group_size=group.num_rows)
            give_back_arrow()


def failure_line(failure: Failure) -> bytes:
    """One line of JSON, UTF-8, that holds no other line end than its last byte."""
    value = {
        "uri": None if failure.uri is None else public_uri(failure.uri),
        "ref_id": failure.ref_id,
        "stage": failure.stage.value,
        "reason": failure.reason.value,
        "detail": failure.detail,
    }
    text = {name: None if item is None else encodable(item) for name, item in value.items()}
    return json.dumps(text, ensure_ascii=False).translate(_LINE_ENDS).encode() + b"\n"


def _row_groups(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.Table]:
    group: list[pa.RecordBatch] = []
    for batch in batches:
        group.append(batch)
        if sum(part.nbytes for part in group) >= ROW_GROUP_BYTES:
            yield pa.Table.from_batches(group)
            group = []
    if group:
        yield pa.Table.from_batches(group)


def _stage_data(rows: UnitRows, spec: OutputSpec, staging_dir: str, unit_id: str) -> FileRecord:
    computed_by = sorted(rows.computed_by)
    spec = _as_computed(spec, computed_by)
    with _temporary_file(staging_dir) as path:
        with path.open("wb") as file:
            write_data(file, rows.in_order(), spec)
        staged = _stage(path, staging_dir, f"shards/{unit_id}", spec.file_ending, "data", len(rows))
    return dataclasses.replace(staged, computed_by=", ".join(computed_by) or None)


def _as_computed(spec: OutputSpec, computed_by: Sequence[str]) -> OutputSpec:
    """The spec whose metadata names what made the rows; a unit is labeled by one engine, as a rule."""
    return dataclasses.replace(spec, metadata=computed_metadata(spec.metadata, computed_by))


def _stage_failures(failures: Sequence[Failure], staging_dir: str, unit_id: str) -> FileRecord:
    with _temporary_file(staging_dir) as path:
        with path.open("wb") as file:
            file.writelines(map(failure_line, failures))
        return _stage(path, staging_dir, f"failures/{unit_id}", "jsonl", "failures", len(failures))


@contextmanager
def _temporary_file(staging_dir: str) -> Iterator[Path]:
    """A file to write to, deleted in the end; beside its final place, so that moving it is a rename."""
    parent = None
    if storage.is_local(staging_dir):
        parent = Path(storage.absolute(staging_dir))
        parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="tmp-", dir=parent) as folder:
        yield Path(folder) / "file"


def _stage(path: Path, staging_dir: str, stem: str, ending: str, kind: str, rows: int) -> FileRecord:
    """Moves a finished file to a name made of its content."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(_HASH_BLOCK_BYTES):
            digest.update(block)
    sha256, size = digest.hexdigest(), path.stat().st_size
    name = f"{stem}-{sha256[:16]}.{ending}"
    storage.put_file(str(path), storage.join(staging_dir, *name.split("/")))
    return FileRecord(name=name, kind=kind, rows=rows, bytes=size, sha256=sha256)


def _record_path(staging_dir: str, unit_id: str) -> str:
    return storage.join(staging_dir, "units", f"{unit_id}.json")


class _Written(NamedTuple):
    record: UnitRecord
    msec: float


@dataclass
class _Gathered:
    """What a bundle has seen of one unit.

    ``rows`` belongs to the writer's thread; it has been given ``handed_over`` predictions.
    """

    rows: UnitRows
    handed_over: int = 0
    predictions: list[Prediction] = field(default_factory=list)
    failures: list[Failure] = field(default_factory=list)
    end: UnitEnd | None = None

    @property
    def seen(self) -> int:
        return self.handed_over + len(self.predictions) + len(self.failures)

    @property
    def tally(self) -> Tally:
        skipped = 0 if self.end is None else self.end.skipped
        return Tally(self.handed_over + len(self.predictions), len(self.failures), skipped)

    def __str__(self) -> str:
        return f"{self.seen} of {'an unknown number of' if self.end is None else self.end.sent} elements"


class _WriteUnitDoFn(beam.DoFn):
    """Gathers the elements of units, which come in any order and interleaved, and writes whole units.

    A unit is written by a thread of its own while the next one is computed: else all cores would wait for one
    that compresses. That thread also takes the predictions of a unit that is still open, a few hundred at a
    time; see ``UnitRows`` for what becomes of them. At most one task waits for it, so that memory is bounded.
    """

    def __init__(self, spec: OutputSpec, staging_dir: str, heartbeats: bool) -> None:
        self._spec = spec
        self._staging_dir = staging_dir
        self._heartbeats = heartbeats
        self._rows = Metrics.counter(metrics.NAMESPACE, metrics.ROWS_WRITTEN)
        self._failures = Metrics.counter(metrics.NAMESPACE, metrics.FAILURES_WRITTEN)
        self._bytes = Metrics.counter(metrics.NAMESPACE, metrics.BYTES_WRITTEN)
        self._msec = Metrics.distribution(metrics.NAMESPACE, metrics.WRITE_UNIT_MSEC)

    def setup(self) -> None:
        use_frugal_arrow_pool()
        self._writer = ThreadPoolExecutor(1, thread_name_prefix="write-unit")
        self._tally = new_tally()
        self._heartbeat = Heartbeat(self._staging_dir) if self._heartbeats else None

    def start_bundle(self) -> None:
        self._open: dict[str, _Gathered] = {}
        self._writing: Future[_Written] | None = None
        self._handing_over: Future[None] | None = None

    def process(self, element: Labeled) -> Iterator[UnitRecord]:
        unit_id = _unit_id(element)
        unit = self._open.get(unit_id)
        if unit is None:
            unit = self._open[unit_id] = _Gathered(UnitRows(self._spec, self._staging_dir))
        if isinstance(element, Prediction):
            unit.predictions.append(element)
            self._tally.predicted += 1
            if len(unit.predictions) == CHUNK_ROWS:
                self._hand_over(unit)
        elif isinstance(element, Failure):
            unit.failures.append(element)
            self._tally.failed += 1
        elif unit.end is not None:
            raise RuntimeError(f"unit {unit_id} ended twice: {unit}")
        else:
            unit.end = element
            self._tally.skipped += element.skipped
        if self._heartbeat is not None and self._heartbeat.is_due():
            self._writer.submit(
                self._heartbeat.write, {name: open.tally for name, open in self._open.items()}
            )
        if unit.end is not None and unit.seen >= unit.end.sent:
            del self._open[unit_id]
            if unit.seen > unit.end.sent:
                raise RuntimeError(f"unit {unit_id} got more than it sent: {unit}")
            yield from self._written()
            self._handed_over()
            self._writing = self._writer.submit(_write_timed, unit.end, unit, self._spec, self._staging_dir)

    def finish_bundle(self) -> Iterator[WindowedValue]:
        if self._open:
            units = "; ".join(f"{unit_id}: {unit}" for unit_id, unit in sorted(self._open.items()))
            raise RuntimeError(f"the bundle ended with open units, nothing of them was written: {units}")
        for record in self._written():
            yield GlobalWindows.windowed_value(record)

    def teardown(self) -> None:
        self._writer.shutdown()

    def _hand_over(self, unit: _Gathered) -> None:
        self._handed_over()
        self._handing_over = self._writer.submit(unit.rows.add, unit.predictions)
        unit.handed_over += len(unit.predictions)
        unit.predictions = []

    def _handed_over(self) -> None:
        """Waits for what was handed over last; raises what went wrong with it."""
        if self._handing_over is not None:
            self._handing_over.result()
            self._handing_over = None

    def _written(self) -> Iterator[UnitRecord]:
        """Waits for the unit that is being written, if any; counts it here, on Beam's thread."""
        if self._writing is None:
            return
        record, msec = self._writing.result()
        self._writing = None
        self._msec.update(round(msec))
        self._rows.inc(record.predicted)
        self._failures.inc(sum(record.failed.values()))
        self._bytes.inc(sum(file.bytes for file in record.files))
        yield record


def _write_timed(end: UnitEnd, unit: _Gathered, spec: OutputSpec, staging_dir: str) -> _Written:
    begin = time.perf_counter()
    with unit.rows as rows:
        rows.add(unit.predictions)
        record = _write(end, rows, unit.failures, spec, staging_dir)
    give_back_arrow()
    return _Written(record, (time.perf_counter() - begin) * 1e3)


def _unit_id(element: Labeled) -> str:
    if isinstance(element, UnitEnd):
        return element.unit.unit_id
    unit_id = element.ref.unit_id if isinstance(element, Prediction) else element.unit_id
    if unit_id is None:
        raise ValueError(f"{element!r} belongs to no work unit")
    return unit_id


class WriteUnit(beam.PTransform):
    """Predictions, failures and unit ends → one ``UnitRecord`` a unit, its files staged.

    All elements of a unit have to come in one bundle, which they do when nothing is shuffled after
    ``OpenUnit``; a bundle that ends with an open unit fails, and leaves no partial file.

    Args:
      spec: what is written.
      staging_dir: a local folder or a URI, as ``write_unit`` takes it.
      heartbeats: whether the workers tell there how far the open units are.
    """

    def __init__(self, spec: OutputSpec, staging_dir: str, *, heartbeats: bool = False) -> None:
        super().__init__()
        self._arguments = spec, staging_dir, heartbeats

    def expand(self, labeled: beam.PCollection[Labeled]) -> beam.PCollection[UnitRecord]:
        """Adds the one step to the pipeline."""
        write = beam.ParDo(_WriteUnitDoFn(*self._arguments))
        return labeled | write.with_output_types(UnitRecord)
