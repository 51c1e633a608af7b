"""The sink: what became of one work unit → staged files and the unit's record.

A unit leaves in the staging folder::

    shards/UNIT-SHA.parquet    its rows, in input order; there even without a row
    failures/UNIT-SHA.jsonl    its failures; there only where there are any
    unchanged/UNIT-SHA.jsonl   its images that were touched and not changed; likewise
    summaries/UNIT-SHA.json    what a report shows of it; there only where a report is wanted
    units/UNIT.json            its record, written last

(and ``references/UNIT`` what the planner left there for it, see ``packed_refs``).

The kinds of files are named by their content: a bundle that is run twice writes the same bytes to the
same name, and two tries that differ (a file was there in one and gone in the other) cannot overwrite each
other's. The record alone has a name that two tries share; it is created only if absent, and whoever comes
second takes over the first one's. So a unit has one record at any time, every file that it names is
complete, and files that no record names are rubbish which is deleted with the staging folder.
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
# Units that are being written, or wait for it: some end at nearly the same time, and each waits for the disk to sync.
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
    """What a bundle has seen of one unit.

    ``rows`` belongs to the writer's thread, or to Beam's while the writer does nothing with it; it has been given
    ``handed_over`` rows, and ``waiting`` ones are in ``predictions``.
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
    """Gathers the elements of units, which come in any order and interleaved, and writes whole units.

    A unit is written by a thread of its own while the next one is computed: else all cores would wait for one
    that compresses. That thread also takes the predictions of a unit that is still open, a few hundred at a
    time; see ``UnitRows`` for what becomes of them. At most a few tasks wait for it, so that memory is bounded.
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
            raise RuntimeError(f"the bundle ended with open units, nothing of them was written: {units}")
        while self._writing:
            yield GlobalWindows.windowed_value(self._written())

    def teardown(self) -> None:
        if self._heartbeat is not None:
            self._heartbeat.close()
        # Of a bundle that failed, a unit may be under way: a storage that hangs must not hold up the worker's end.
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
                raise RuntimeError(f"unit {element.unit.unit_id} ended twice: {unit}")
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
        """Has a unit written that is whole now; the records of units before it."""
        unit = self._open[unit_id]
        if unit.end is None or unit.seen < unit.end.sent:
            return
        del self._open[unit_id]
        if unit.seen > unit.end.sent:
            raise RuntimeError(f"unit {unit_id} got more than it sent: {unit}")
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
        """Takes many rows in this thread: there is little to do, and the writer may be busy with the unit before."""
        self._handed_over()
        unit.rows.add_labeled(rows)
        unit.handed_over += len(rows.places)

    def _handed_over(self) -> None:
        """Waits for what was handed over last; raises what went wrong with it."""
        if self._handing_over is not None:
            self._writer.result(self._handing_over)
            self._handing_over = None

    def _written(self) -> UnitRecord:
        """Waits for the first of the units that are being written; counts it here, on Beam's thread."""
        record, msec = self._writer.result(self._writing.popleft())
        self._msec.update(round(msec))
        self._rows.inc(record.predicted)
        self._failures.inc(sum(record.failed.values()))
        self._bytes.inc(sum(file.bytes for file in record.files))
        return record


def _write_next(broken: Event, *arguments: Any) -> _Written:
    """Writes a unit, unless one before it in the bundle could not be written."""
    if broken.is_set():
        raise RuntimeError("a unit before this one was not written")
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
    """The rows of each unit; a batch is of one, or of few."""
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
    """Predictions, failures and unit ends → one ``UnitRecord`` a unit, its files staged.

    All elements of a unit have to come in one bundle, which they do when nothing is shuffled after
    ``OpenUnit``; a bundle that ends with an open unit fails, and leaves no partial file.

    Args:
      spec: what is written.
      staging_dir: a local folder or a URI, as ``write_unit`` takes it.
      heartbeats: whether the workers tell there how far the open units are.
      summaries: whether each unit's summary is staged too, for a report; shards are the same either way.
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
