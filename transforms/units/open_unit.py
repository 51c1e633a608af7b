"""Work unit → its references, each to be fetched, and the end mark that tells the sink their number."""

from __future__ import annotations

import dataclasses
import math
import time
from collections import Counter
from collections.abc import Iterable, Iterator

import apache_beam as beam

from beamlabel.transforms.deadline import timeouts
from beamlabel.transforms.inputs.kept_columns import directory_columns
from beamlabel.transforms.inputs.packed_refs import without_references
from beamlabel.transforms.inputs.seen_images import SeenImages
from beamlabel.transforms.inputs.selection import Selection
from beamlabel.transforms.inputs.sources.embeddings import EmbeddingsSource
from beamlabel.transforms.inputs.sources.registry import IMAGES, WITHOUT_COLUMNS, source_of
from beamlabel.transforms.inputs.sources.source import SourceOptions
from beamlabel.transforms.records import (
    Block,
    EmbeddedRows,
    Failure,
    ImageRef,
    Opened,
    Reason,
    SkipReason,
    Stage,
    UnitEnd,
    UnitRecord,
    WorkUnit,
    unknown_element,
)
from beamlabel.transforms.row_batches import BLOCK_ROWS
from beamlabel.transforms.storage.billing import set_billing_project
from beamlabel.transforms.storage.uris import public_uri
from beamlabel.transforms.units.earlier_shards import EarlierShards
from beamlabel.transforms.units.relabel_refs import FeatureReader, RelabeledRefs
from beamlabel.transforms.units.shared_units import parts_of
from beamlabel.transforms.units.time_limit import TimeLimit
from beamlabel.transforms.units.unit_records import read_record
from beamlabel.transforms.worker.block_coder import BLOCKS
from beamlabel.transforms.worker.daemon_pool import DaemonPool
from beamlabel.transforms.worker.tally import new_tally

STAGED = "staged"
# The bytes of inline images in a block; a single larger image is a block, too.
_BLOCK_BYTES = 4 << 20


def open_unit(
    unit: WorkUnit,
    options: SourceOptions,
    selection: Selection,
    seen: SeenImages | None = None,
    reader: FeatureReader | None = None,
) -> Iterator[Opened]:
    """Yields an ``ImageRef`` or, for a null URI, a ``Failure`` for each input row, then the ``UnitEnd``.

    Rows with known features come as ``EmbeddedRows``, many in each: rows of an input of embeddings, and images whose
    features ``reader`` finds in earlier outputs.

    Images that the selection finds labeled, or failed for a lasting reason, count as skipped in the ``UnitEnd``.
    ``seen`` gets all references.

    Raises:
      ValueError: a file has changed since it was planned.
      OSError: the unit's file or its staged references cannot be read.
    """
    if isinstance(source_of(unit.input_file.format), EmbeddingsSource):
        sent = 0
        for rows in _embedded(unit, options):
            yield rows
            sent += len(rows.places)
        yield UnitEnd(without_references(unit), sent)
        return
    left_out = Counter(dict(unit.left_out))
    refs = _refs(unit, options, selection, left_out)
    skipped: Counter[str] = Counter()
    sent = 0
    relabeled = None if reader is None else RelabeledRefs(reader, unit.unit_id)
    wanted = refs if seen is None else map(seen.see, refs)
    if not selection.decides:
        for wanted_ref in wanted:
            sent += 1
            yield wanted_ref
        wanted = iter(())
    for ref, reason, features, version in selection.decided(wanted):
        if reason is not None:
            skipped[reason.value] += 1
            continue
        sent += 1
        if relabeled is None or features is None or isinstance(ref, Failure):
            yield ref
        else:
            yield from relabeled.add(ref, features, version)
    if relabeled is not None:
        yield from relabeled.flush()
    done = dataclasses.replace(without_references(unit), left_out=tuple(sorted(left_out.items())))
    yield UnitEnd(done, sent, skipped.total(), dict(sorted(skipped.items())))


def without_hanging(elements: Iterable[Opened], failed: frozenset[str]) -> Iterator[Opened]:
    """The same elements, with a failure in place of each image that hangs."""
    for element in elements:
        if isinstance(element, ImageRef) and element.ref_id in failed:
            yield _hanging(element)
        else:
            yield element


def _hanging(ref: ImageRef) -> Failure:
    return Failure(
        uri=public_uri(ref.uri),
        ref_id=ref.ref_id,
        stage=Stage.INFERENCE,
        reason=Reason.INFERENCE_TIMEOUT,
        detail="inference exceeded --inference_deadline twice for this image",
        row=ref.row,
        unit_id=ref.unit_id,
        image_id=ref.image_id,
        origin=ref.origin,
    )


def in_blocks(elements: Iterable[Opened]) -> Iterator[Block]:
    """The same elements in blocks: ``EmbeddedRows`` alone, other elements many in each."""
    refs = Block()
    for element in elements:
        if isinstance(element, EmbeddedRows):
            yield Block([element], element.batch.nbytes)
            continue
        refs.append(element)
        if isinstance(element, ImageRef) and element.data is not None:
            refs.nbytes += len(element.data)
        if len(refs) >= BLOCK_ROWS or refs.nbytes >= _BLOCK_BYTES:
            yield refs
            refs = Block()
    if refs:
        yield refs


def _embedded(unit: WorkUnit, options: SourceOptions) -> Iterator[EmbeddedRows]:
    """The rows of a unit of embeddings; a row's place in its file becomes its place in the unit."""
    before = 0
    for part in parts_of(unit) if unit.parts else (unit,):
        source = source_of(part.input_file.format)
        assert isinstance(source, EmbeddingsSource)
        for rows in source.embedded(part, options):
            yield dataclasses.replace(rows, unit_id=unit.unit_id, places=rows.places + before)
        before += part.stop


def _refs(
    unit: WorkUnit, options: SourceOptions, selection: Selection, left_out: Counter[str]
) -> Iterator[ImageRef | Failure]:
    """The references of a unit that count as input; ``left_out`` gets the counts of the others."""
    if not unit.parts:
        yield from _refs_of_file(unit, options, selection, left_out)
        return
    before = 0
    for part in parts_of(unit):
        # A row's place in its file becomes its place in the unit, which orders the shard.
        stop = part.stop
        for ref in _refs_of_file(part, options, selection, left_out):
            stop = max(stop, ref.row + 1)  # lists may hold more references than there are rows
            yield dataclasses.replace(ref, row=before + ref.row, unit_id=unit.unit_id)
        before += stop


def _refs_of_file(
    unit: WorkUnit, options: SourceOptions, selection: Selection, left_out: Counter[str]
) -> Iterator[ImageRef | Failure]:
    """The references of a range of one file, with the columns from its directories' names."""
    format, kept = unit.input_file.format, options.columns.kept
    refs = source_of(format).wanted_refs(unit, options, selection.is_input, left_out)
    if not kept or format not in WITHOUT_COLUMNS:
        yield from refs
        return
    of_file = directory_columns(unit.input_file.path, kept)
    for ref in refs:
        if isinstance(ref, ImageRef):
            values = directory_columns(ref.location, kept) if format == IMAGES else of_file
            ref = dataclasses.replace(ref, passthrough=values)
        yield ref


def skip_unit(unit: WorkUnit, options: SourceOptions, selection: Selection) -> UnitRecord:
    """The record of a unit that does not begin before the time limit; its references are counted.

    Raises:
      ValueError, OSError: see ``open_unit``.
    """
    left_out = Counter(dict(unit.left_out))
    count = _count(unit, options, selection, left_out)
    return UnitRecord(
        unit_id=unit.unit_id,
        ranges=unit.ranges,
        input=count,
        predicted=0,
        failed={},
        skipped=count,
        files=(),
        out_of_time=True,
        left_out=dict(left_out),
        skipped_by_reason={SkipReason.TIME_LIMIT.value: count} if count else {},
    )


def _count(unit: WorkUnit, options: SourceOptions, selection: Selection, left_out: Counter[str]) -> int:
    if options.selection.only is None and options.sample >= 1:
        rows = [source_of(part.input_file.format).rows(part) for part in unit.parts or (unit,)]
        known = [count for count in rows if count is not None]
        if len(known) == len(rows):
            return sum(known)
    parts = parts_of(unit) if unit.parts else (unit,)
    return sum(
        source_of(part.input_file.format).count(part, options, selection.is_input, left_out) for part in parts
    )


def _feature_reader(options: SourceOptions) -> FeatureReader | None:
    shards, kept = options.selection.feature_shards, options.columns.kept
    if shards is None:
        return None
    fields = [(column.name, column.type) for column in kept]
    return FeatureReader(EarlierShards(shards.path, shards.sha256), fields)


class _OpenUnitDoFn(beam.DoFn):
    def __init__(self, options: SourceOptions, staging_dir: str, time_limit: TimeLimit | None) -> None:
        self._options = options
        self._staging_dir = staging_dir
        self._time_limit = time_limit

    def setup(self) -> None:
        set_billing_project(self._options.billing_project)
        self._selection = Selection(self._options.selection)
        self._reader = _feature_reader(self._options)
        self._asking = DaemonPool(1, "timeouts")
        self._tally = new_tally()
        self._stop_at = math.inf if self._time_limit is None else self._time_limit.stop_at(self._staging_dir)

    def process(self, unit: WorkUnit) -> Iterator[Block | beam.pvalue.TaggedOutput]:
        if not isinstance(unit, WorkUnit):
            raise TypeError(unknown_element("OpenUnit", unit, WorkUnit))
        # Both reads of a remote staging directory run at the same time.
        asked = self._asking.submit(timeouts.read, timeouts.directory(self._staging_dir), unit.unit_id)
        record = read_record(self._staging_dir, unit.unit_id)
        if record is None and time.time() >= self._stop_at:
            record = skip_unit(unit, self._options, self._selection)
        seen = None if self._selection.live is None else SeenImages(self._selection.live)
        if record is None:
            opened = open_unit(unit, self._options, self._selection, seen, self._reader)
            earlier = self._asking.result(asked)
            timeouts.suspect(unit.unit_id, earlier)
            yield from in_blocks(without_hanging(opened, earlier.failed) if earlier.failed else opened)
        else:
            self._tally.predicted += record.predicted
            self._tally.failed += sum(record.failed.values())
            self._tally.skipped += record.skipped
            if seen is not None and not record.out_of_time:
                self._see_again(unit, seen)
        # The references of a unit past the time limit were not read.
        if seen is not None and not (record is not None and record.out_of_time):
            seen.stage(self._staging_dir, unit.unit_id)
        if record is not None:
            yield beam.pvalue.TaggedOutput(STAGED, record)

    def teardown(self) -> None:
        self._asking.close()
        if self._reader is not None:
            self._reader.close()

    def _see_again(self, unit: WorkUnit, seen: SeenImages) -> None:
        """Reads the references of a finished unit, unless an earlier try staged them."""
        if not SeenImages.is_staged(self._staging_dir, unit.unit_id):
            for ref in _refs(unit, self._options, self._selection, Counter()):
                seen.see(ref)


class OpenUnit(beam.PTransform):
    """Work units → references.

    The main output is the stream for the sink, the results of ``open_unit`` in ``Block``s. The output ``staged``
    holds the ``UnitRecord`` of each unit that is past the time limit, or was finished by an earlier try of its bundle
    or by an interrupted run.

    Args:
      options: how inputs become references.
      staging_dir: directory of the records of finished units.
      time_limit: after which no unit begins; None: no limit.
    """

    def __init__(self, options: SourceOptions, staging_dir: str, time_limit: TimeLimit | None = None) -> None:
        super().__init__()
        self._arguments = options, staging_dir, time_limit

    def expand(self, units: beam.PCollection[WorkUnit]) -> beam.pvalue.DoFnOutputsTuple:
        open_units = beam.ParDo(_OpenUnitDoFn(*self._arguments))
        opened = units | open_units.with_outputs(STAGED, main="refs")
        opened.refs.element_type = BLOCKS
        return opened
