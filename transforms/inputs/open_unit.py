"""Work unit → its references, each to be fetched, and the end mark that tells the sink their number."""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Iterable, Iterator

import apache_beam as beam

from beamlabel.transforms.inputs.packed_refs import PackedRef, references
from beamlabel.transforms.inputs.parquet_source import open_parquet, read_rows
from beamlabel.transforms.inputs.plan_units import SourceOptions, ref_id
from beamlabel.transforms.inputs.selection import Selection
from beamlabel.transforms.inputs.time_limit import TimeLimit
from beamlabel.transforms.inputs.unit_records import read_record
from beamlabel.transforms.records import (
    Failure,
    ImageRef,
    Opened,
    Reason,
    Stage,
    UnitEnd,
    UnitRecord,
    WorkUnit,
    unknown_element,
)
from beamlabel.transforms.storage.identity import image_id
from beamlabel.transforms.storage.uris import resolve
from beamlabel.transforms.worker.tally import new_tally

STAGED = "staged"


def open_unit(unit: WorkUnit, options: SourceOptions, selection: Selection) -> Iterator[Opened]:
    """Yields an ``ImageRef`` or, for a null URI, a ``Failure`` for each input row, then the ``UnitEnd``.

    What the selection knows as labeled is counted in the ``UnitEnd`` as skipped.

    Raises:
      ValueError: a Parquet file has another number of rows than when it was planned.
      OSError: its file, or what was staged of the unit's references, cannot be read.
    """
    refs = _refs(unit, options)
    sent = skipped = 0
    for ref, is_labeled in selection.with_labeled(filter(selection.is_input, refs)):
        if is_labeled:
            skipped += 1
        else:
            yield ref
            sent += 1
    yield UnitEnd(dataclasses.replace(unit, packed_refs=None, refs_path=None), sent, skipped)


def _refs(unit: WorkUnit, options: SourceOptions) -> Iterator[ImageRef | Failure]:
    packed = references(unit)
    return _parquet_refs(unit, options) if packed is None else _packed_refs(unit, packed, options)


def _packed_refs(
    unit: WorkUnit, packed: Iterable[PackedRef], options: SourceOptions
) -> Iterator[ImageRef | Failure]:
    listed = unit.input_file.format == "images"
    for row, uri, listing_stat in packed:
        # A listed image is its own input file; its place in the listing says nothing tomorrow.
        identity = ref_id(uri, 0) if listed else ref_id(unit.input_file.path, row)
        location = uri if listed else resolve(uri, options.base_dir)
        yield ImageRef(
            uri, identity, location, row, unit.unit_id, listing_stat=listing_stat, image_id=image_id(location)
        )


def _parquet_refs(unit: WorkUnit, options: SourceOptions) -> Iterator[ImageRef | Failure]:
    path = unit.input_file.path
    seen = unit.start
    with open_parquet(path) as file:
        rows = file.metadata.num_rows
        if rows < unit.stop or unit.file_rows not in (None, rows):
            raise ValueError(
                f"{path}: {rows} rows, but {unit.file_rows or unit.stop} when the run was planned"
            )
        for row in read_rows(file, options.columns, start=unit.start, stop=unit.stop, path=path):
            seen = row.row + 1
            identity = ref_id(path, row.row)
            uri = row.uri or identity
            if not options.in_sample(uri):
                continue
            if row.uri is None and row.data is None:
                detail = (
                    "the row has neither a URI nor an image" if options.columns.image else "the URI is null"
                )
                yield Failure(None, identity, Stage.OPEN, Reason.NULL_URI, detail, row.row, unit.unit_id)
            else:
                location = resolve(uri, options.base_dir) if row.data is None else identity
                # Hashing an inline image is left to the threads that load it.
                known = image_id(location) if row.data is None else None
                yield ImageRef(
                    uri, identity, location, row.row, unit.unit_id, row.data, row.kept, image_id=known
                )
    if seen != unit.stop:
        raise ValueError(
            f"{path}: rows {unit.start} to {unit.stop} were planned, but reading ended at {seen}"
        )


def skip_unit(unit: WorkUnit, options: SourceOptions, selection: Selection) -> UnitRecord:
    """The record of a unit that nobody has the time for; its references are counted.

    Raises:
      ValueError, OSError: see ``open_unit``.
    """
    count = _count(unit, options, selection)
    return UnitRecord(
        unit_id=unit.unit_id,
        input_path=unit.input_file.path,
        start=unit.start,
        stop=unit.stop,
        last=unit.last,
        file_rows=unit.file_rows,
        input=count,
        predicted=0,
        failed={},
        skipped=count,
        files=(),
        out_of_time=True,
    )


def _count(unit: WorkUnit, options: SourceOptions, selection: Selection) -> int:
    if options.selection.only is None and options.sample >= 1 and unit.input_file.format == "parquet":
        return unit.stop - unit.start
    return sum(map(selection.is_input, _refs(unit, options)))


class _OpenUnitDoFn(beam.DoFn):
    def __init__(self, options: SourceOptions, staging_dir: str, time_limit: TimeLimit | None) -> None:
        self._options = options
        self._staging_dir = staging_dir
        self._time_limit = time_limit

    def setup(self) -> None:
        self._selection = Selection(self._options.selection)
        self._tally = new_tally()
        self._stop_at = math.inf if self._time_limit is None else self._time_limit.stop_at(self._staging_dir)

    def process(self, unit: WorkUnit) -> Iterator[Opened | beam.pvalue.TaggedOutput]:
        if not isinstance(unit, WorkUnit):
            raise TypeError(unknown_element("OpenUnit", unit, WorkUnit))
        record = read_record(self._staging_dir, unit.unit_id)
        if record is None and time.time() >= self._stop_at:
            record = skip_unit(unit, self._options, self._selection)
        if record is not None:
            self._tally.predicted += record.predicted
            self._tally.failed += sum(record.failed.values())
            self._tally.skipped += record.skipped
            yield beam.pvalue.TaggedOutput(STAGED, record)
        else:
            yield from open_unit(unit, self._options, self._selection)


class OpenUnit(beam.PTransform):
    """Work units → references.

    The main output is the stream that goes on to the sink; the output ``staged`` holds the ``UnitRecord`` of
    each unit that is done already, by an earlier try of its bundle or by a run that was cut off, or that comes
    too late.

    Args:
      options: how inputs become references.
      staging_dir: where finished units leave their records.
      time_limit: after which no unit is begun any more; None for none.
    """

    def __init__(self, options: SourceOptions, staging_dir: str, time_limit: TimeLimit | None = None) -> None:
        super().__init__()
        self._arguments = options, staging_dir, time_limit

    def expand(self, units: beam.PCollection[WorkUnit]) -> beam.pvalue.DoFnOutputsTuple:
        open_units = beam.ParDo(_OpenUnitDoFn(*self._arguments))
        return units | open_units.with_outputs(STAGED, main="refs")
