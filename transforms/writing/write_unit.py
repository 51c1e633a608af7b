"""The sink: results of one work unit → staged files and the unit's record.

A unit leaves in the staging directory::

    shards/UNIT-SHA.parquet    its rows, in input order; written even without rows
    failures/UNIT-SHA.jsonl    its failures, if there are any
    unchanged/UNIT-SHA.jsonl   its images with a new version and the same content, if there are any
    summaries/UNIT-SHA.json    its summary, if a report is requested
    units/UNIT.json            its record, written last

(and ``references/UNIT``, written by the planner, see ``packed_refs``).

Files are named by their content: a bundle that runs twice writes the same bytes to the same name, and two tries with
different results (a file existed in one and not in the other) cannot overwrite each other's files. Only the record has
a name that two tries share; it is created only if absent, and the second try adopts the first one's record. So a unit
has one record at any time, every file that it names is complete, and files that no record names are deleted with the
staging directory.
"""

from __future__ import annotations

import dataclasses
import time
from collections import Counter, deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from threading import Event
from types import MappingProxyType
from typing import Any, NamedTuple

import apache_beam as beam
from apache_beam.metrics import Metrics
from apache_beam.transforms.window import GlobalWindows
from apache_beam.utils.windowed_value import WindowedValue

from beamlabel.transforms.records import (
    Block,
    Failure,
    Labeled,
    LabeledRows,
    Prediction,
    PredictionBlock,
    Skipped,
    UnitEnd,
    UnitRecord,
    unknown_element,
)
from beamlabel.transforms.rows.schema import OutputSpec
from beamlabel.transforms.units.unit_records import stage_record
from beamlabel.transforms.worker import metrics
from beamlabel.transforms.worker.allocators import release_unused_arrow_memory, use_jemalloc_pool
from beamlabel.transforms.worker.daemon_pool import DaemonPool
from beamlabel.transforms.worker.tally import Tally, new_tally
from beamlabel.transforms.worker.versions import SameVersionsCoder
from beamlabel.transforms.writing.heartbeat import Heartbeat
from beamlabel.transforms.writing.staged_files import (
    is_worth_telling,
    stage_data,
    stage_failures,
    stage_summary,
    stage_unchanged,
)
from beamlabel.transforms.writing.unit_rows import CHUNK_ROWS, UnitRows
from beamlabel.transforms.writing.unit_summary import Summarizer

_CLOSE_SECONDS = 5.0
# Units that are being written or queued: some end at nearly the same time, and each waits for the disk to sync.
_BEING_WRITTEN = 3

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
      end: the unit, and the number of elements that it sent.
      predictions, failures: results of all elements, in any order.
      spec: of the output.
      staging_dir: a local directory or a URI; see the module for its content.

    Returns:
      The staged record: another try's, if that was first.

    Raises:
      ValueError: The number of elements differs from the number sent, or they do not match the spec.
      OSError: The staging directory cannot be written.
    """
    with UnitRows(spec, staging_dir) as rows:
        rows.add(list(predictions))
        return _write(end, rows, failures, (), spec, staging_dir)


def _write(
    end: UnitEnd,
    rows: UnitRows,
    failures: Iterable[Failure],
    skipped: Sequence[Skipped],
    spec: OutputSpec,
    staging_dir: str,
    summarizer: Summarizer | None = None,
    times: Mapping[str, Any] = MappingProxyType({}),
) -> UnitRecord:
    failed = sorted(failures, key=lambda failure: failure.row)
    unit = end.unit
    files = [stage_data(rows, spec, staging_dir, unit.unit_id)]
    if failed:
        files.append(stage_failures(failed, spec.labeled_at, staging_dir, unit.unit_id))
    if touched := [one for one in skipped if is_worth_telling(one)]:
        files.append(stage_unchanged(touched, spec.labeled_at, staging_dir, unit.unit_id))
    files = [dataclasses.replace(file, **times) for file in files]
    if summarizer is not None:
        files.append(stage_summary(summarizer, failed, staging_dir, unit))
    by_reason = Counter(end.skipped_by_reason) + Counter(one.reason.value for one in skipped)
    record = UnitRecord(
        unit_id=unit.unit_id,
        ranges=unit.ranges,
        input=end.sent + end.skipped,
        predicted=len(rows),
        failed=dict(sorted(Counter(failure.reason.value for failure in failed).items())),
        skipped=end.skipped + len(skipped),
        files=tuple(files),
        color_converted=rows.color_converted,
        left_out=dict(unit.left_out),
        skipped_by_reason=dict(sorted(by_reason.items())),
        relabeled=rows.relabeled,
    )
    return stage_record(record, staging_dir)


class _Written(NamedTuple):
    record: UnitRecord
    msec: float


@dataclass
class _Gathered:
    """The elements of one unit in a bundle so far.

    ``rows`` belongs to the writer's thread, or to Beam's while the writer does not use it; it has received
    ``handed_over`` rows, and ``waiting`` rows are in ``predictions``.
    """

    rows: UnitRows
    summarizer: Summarizer | None
    started_at: float = field(default_factory=time.time)
    handed_over: int = 0
    predictions: list[Prediction | PredictionBlock] = field(default_factory=list)
    waiting: int = 0
    failures: list[Failure] = field(default_factory=list)
    skipped: list[Skipped] = field(default_factory=list)
    end: UnitEnd | None = None

    @property
    def seen(self) -> int:
        return self.handed_over + self.waiting + len(self.failures) + len(self.skipped)

    @property
    def tally(self) -> Tally:
        skipped = len(self.skipped) + (0 if self.end is None else self.end.skipped)
        return Tally(self.handed_over + self.waiting, len(self.failures), skipped)

    def __str__(self) -> str:
        return f"{self.seen} of {'an unknown number of' if self.end is None else self.end.sent} elements"


class _WriteUnitDoFn(beam.DoFn):
    """Collects the elements of units, which arrive in any order and interleaved, and writes whole units.

    A separate thread writes a unit while the next one is computed, so that the cores do not wait for the compression.
    That thread also passes the predictions of an open unit to ``UnitRows``, a few hundred at a time. Only a few tasks
    wait for it, so that memory is bounded.
    """

    def __init__(
        self, spec: OutputSpec, staging_dir: str, heartbeats: bool = False, summaries: bool = False
    ) -> None:
        self._spec = spec
        self._staging_dir = staging_dir
        self._heartbeats = heartbeats
        self._summaries = summaries
        self._rows = Metrics.counter(metrics.NAMESPACE, metrics.ROWS_WRITTEN)
        self._failures = Metrics.counter(metrics.NAMESPACE, metrics.FAILURES_WRITTEN)
        self._bytes = Metrics.counter(metrics.NAMESPACE, metrics.BYTES_WRITTEN)
        self._msec = Metrics.distribution(metrics.NAMESPACE, metrics.WRITE_UNIT_MSEC)

    def setup(self) -> None:
        use_jemalloc_pool()
        self._writer = DaemonPool(1, "write-unit")
        self._tally = new_tally()
        self._heartbeat = Heartbeat(self._staging_dir) if self._heartbeats else None

    def start_bundle(self) -> None:
        self._open: dict[str, _Gathered] = {}
        self._writing: deque[Future[_Written]] = deque()
        self._broken = Event()
        self._handing_over: Future[None] | None = None

    def process(self, element: Labeled | Block) -> Iterator[UnitRecord]:
        elements: Sequence[Labeled | PredictionBlock] = element if isinstance(element, Block) else (element,)
        for each in elements:
            if isinstance(each, PredictionBlock):
                for unit_id, block in _by_unit(each):
                    self._add_block(self._unit(unit_id), block)
                    yield from self._closed(unit_id)
            else:
                unit_id = _unit_id(each)
                self._add(self._unit(unit_id), each)
                yield from self._closed(unit_id)
        if self._heartbeat is not None and self._heartbeat.is_due():
            self._heartbeat.write({name: open.tally for name, open in self._open.items()})

    def finish_bundle(self) -> Iterator[WindowedValue]:
        if self._open:
            units = "; ".join(f"{unit_id}: {unit}" for unit_id, unit in sorted(self._open.items()))
            raise RuntimeError(f"The bundle ended with incomplete units, which were not written: {units}")
        while self._writing:
            yield GlobalWindows.windowed_value(self._written())

    def teardown(self) -> None:
        if self._heartbeat is not None:
            self._heartbeat.close()
        # After a failed bundle a unit may still be being written: hanging storage must not keep the worker from ending.
        self._writer.close(_CLOSE_SECONDS)

    def _unit(self, unit_id: str) -> _Gathered:
        unit = self._open.get(unit_id)
        if unit is None:
            summarizer = Summarizer(self._spec.metadata) if self._summaries else None
            unit = self._open[unit_id] = _Gathered(UnitRows(self._spec, self._staging_dir), summarizer)
        return unit

    def _add(self, unit: _Gathered, element: Labeled) -> None:
        if isinstance(element, Prediction):
            if unit.summarizer is not None:
                element = unit.summarizer.add(element)
            self._add_predictions(unit, element, 1)
        elif isinstance(element, LabeledRows):
            if unit.summarizer is not None:
                unit.summarizer.add_labeled(element)
            self._tally.predicted += len(element.places)
            self._add_rows(unit, element)
        elif isinstance(element, Failure):
            unit.failures.append(element)
            self._tally.failed += 1
        elif isinstance(element, Skipped):
            unit.skipped.append(element)
            self._tally.skipped += 1
        elif isinstance(element, UnitEnd):
            if unit.end is not None:
                raise RuntimeError(f"Unit {element.unit.unit_id} ended twice: {unit}")
            unit.end = element
            self._tally.skipped += element.skipped

    def _add_block(self, unit: _Gathered, block: PredictionBlock) -> None:
        if unit.summarizer is not None:
            block = unit.summarizer.add_block(block)
        self._add_predictions(unit, block, len(block))

    def _add_predictions(
        self, unit: _Gathered, predictions: Prediction | PredictionBlock, count: int
    ) -> None:
        unit.predictions.append(predictions)
        unit.waiting += count
        self._tally.predicted += count
        if unit.waiting >= CHUNK_ROWS:
            self._hand_over(unit)

    def _closed(self, unit_id: str) -> Iterator[UnitRecord]:
        """Queues a unit for writing if it is complete; yields the records of earlier units."""
        unit = self._open[unit_id]
        if unit.end is None or unit.seen < unit.end.sent:
            return
        del self._open[unit_id]
        if unit.seen > unit.end.sent:
            raise RuntimeError(f"Unit {unit_id} received more elements than it sent: {unit}")
        while len(self._writing) >= _BEING_WRITTEN:
            yield self._written()
        self._handed_over()
        arguments = (unit.end, unit, self._spec, self._staging_dir)
        self._writing.append(self._writer.submit(_write_next, self._broken, *arguments))

    def _hand_over(self, unit: _Gathered) -> None:
        self._handed_over()
        self._handing_over = self._writer.submit(unit.rows.add, unit.predictions)
        unit.handed_over += unit.waiting
        unit.predictions, unit.waiting = [], 0

    def _add_rows(self, unit: _Gathered, rows: LabeledRows) -> None:
        """Adds many rows in this thread: that is little work, and the writer may be busy with the previous unit."""
        self._handed_over()
        unit.rows.add_labeled(rows)
        unit.handed_over += len(rows.places)

    def _handed_over(self) -> None:
        """Waits for the rows handed over last, and raises their error."""
        if self._handing_over is not None:
            self._writer.result(self._handing_over)
            self._handing_over = None

    def _written(self) -> UnitRecord:
        """Waits for the first unit in the queue; counts it here, on Beam's thread."""
        record, msec = self._writer.result(self._writing.popleft())
        self._msec.update(round(msec))
        self._rows.inc(record.predicted)
        self._failures.inc(sum(record.failed.values()))
        self._bytes.inc(sum(file.bytes for file in record.files))
        return record


def _write_next(broken: Event, *arguments: Any) -> _Written:
    """Writes a unit, unless writing an earlier unit of the bundle failed."""
    if broken.is_set():
        raise RuntimeError("An earlier unit of the bundle could not be written")
    try:
        return _write_timed(*arguments)
    except BaseException:
        broken.set()
        raise


def _write_timed(end: UnitEnd, unit: _Gathered, spec: OutputSpec, staging_dir: str) -> _Written:
    begin = time.perf_counter()
    times = {"started_at": unit.started_at, "finished_at": time.time()}
    with unit.rows as rows:
        rows.add(unit.predictions)
        arguments = (unit.failures, unit.skipped, spec, staging_dir, unit.summarizer, times)
        record = _write(end, rows, *arguments)
    release_unused_arrow_memory()
    return _Written(record, (time.perf_counter() - begin) * 1e3)


def _by_unit(block: PredictionBlock) -> Iterator[tuple[str, PredictionBlock]]:
    """Splits a block by unit; a batch usually belongs to one."""
    places: dict[str | None, list[int]] = {}
    for place, ref in enumerate(block.refs):
        places.setdefault(ref.unit_id, []).append(place)
    for unit_id, of_unit in places.items():
        if unit_id is None:
            raise ValueError(f"{block.refs[of_unit[0]]!r} belongs to no work unit")
        yield unit_id, block if len(places) == 1 else block.take(of_unit)


def _unit_id(element: Labeled) -> str:
    if isinstance(element, UnitEnd):
        return element.unit.unit_id
    if not isinstance(element, (Prediction, LabeledRows, Failure, Skipped)):
        raise TypeError(unknown_element("WriteUnit", element, Prediction, Failure, UnitEnd))
    unit_id = element.unit_id if isinstance(element, (LabeledRows, Failure)) else element.ref.unit_id
    if unit_id is None:
        raise ValueError(f"{element!r} belongs to no work unit")
    return unit_id


class WriteUnit(beam.PTransform):
    """Predictions, failures and unit ends → one ``UnitRecord`` per unit, with its files staged.

    All elements of a unit must arrive in one bundle, as they do if nothing is shuffled after ``OpenUnit``. A bundle
    that ends with an incomplete unit fails, and leaves no partial file.

    Args:
      spec: of the output.
      staging_dir: a local directory or a URI, see ``write_unit``.
      heartbeats: whether the workers write the progress of open units there.
      summaries: whether each unit's summary is staged too, for a report; it does not change the shards.
    """

    def __init__(
        self, spec: OutputSpec, staging_dir: str, *, heartbeats: bool = False, summaries: bool = False
    ) -> None:
        super().__init__()
        self._arguments = spec, staging_dir, heartbeats, summaries

    def expand(self, labeled: beam.PCollection[Labeled]) -> beam.PCollection[UnitRecord]:
        """Adds the one step to the pipeline."""
        write = beam.ParDo(_WriteUnitDoFn(*self._arguments))
        return labeled | write.with_output_types(UnitRecord)
