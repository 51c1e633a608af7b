"""Input files → work units.

The references of text files and listings are packed, as their rows cannot be found again by number (see
``packed_refs``); a Parquet unit only names its range, so that image bytes are read where they are needed.
"""

from __future__ import annotations

import bisect
import itertools
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

import apache_beam as beam
import pyarrow.parquet as pq

from beamlabel.transforms import storage
from beamlabel.transforms.inputs.packed_refs import PackedRef, RefSpiller, pack
from beamlabel.transforms.inputs.parquet_source import ParquetColumns, open_parquet, read_rows
from beamlabel.transforms.inputs.selection import SelectionOptions
from beamlabel.transforms.inputs.text_source import read_lines
from beamlabel.transforms.records import InputFile, WorkUnit, unit_id
from beamlabel.transforms.storage.uris import public_uri, sample_hash
from beamlabel.transforms.worker.versions import SameVersionsCoder

MAX_UNIT_ROWS = 10_000
_MIN_UNIT_ROWS = 64
# By default a unit is a 64th of what came before it in the file: small inputs are cut fine enough for
# every worker, large ones soon reach the full size, and no total is needed before the first unit.
_GROWTH = 64

beam.coders.registry.register_coder(WorkUnit, SameVersionsCoder)


@dataclass(frozen=True)
class SourceOptions:
    """How inputs become references.

    Attributes:
      base_dir: what relative references are relative to; absolute.
      columns: what is read of Parquet inputs.
      limit: at most so many references in all; None for all of them.
      sample: a URI is in when its hash is below this; 1.0 for all of them.
      shard_rows: references in a unit; None for the growing default.
      selection: which of the references count, and which are labeled.
    """

    base_dir: str
    columns: ParquetColumns = field(default_factory=ParquetColumns)
    limit: int | None = None
    sample: float = 1.0
    shard_rows: int | None = None
    selection: SelectionOptions = field(default_factory=SelectionOptions)

    def __post_init__(self) -> None:
        if self.limit is not None and self.limit < 1:
            raise ValueError(f"limit must be at least 1, not {self.limit}")
        if not 0 < self.sample <= 1:
            raise ValueError(f"sample must be in (0, 1], not {self.sample}")
        if self.shard_rows is not None and self.shard_rows < 1:
            raise ValueError(f"shard_rows must be at least 1, not {self.shard_rows}")

    def in_sample(self, uri: str) -> bool:
        """Whether ``--sample`` keeps this URI."""
        return self.sample >= 1 or sample_hash(uri) < self.sample

    def unit_rows(self, rows_before: int) -> int:
        """The size of the next unit of a file, ``rows_before`` references into it."""
        if self.shard_rows is not None:
            return self.shard_rows
        return min(max(rows_before // _GROWTH, _MIN_UNIT_ROWS), MAX_UNIT_ROWS)


def ref_id(path: str, row: int) -> str:
    """``input file#row``."""
    return f"{public_uri(path)}#{row}"


def plan_files(files: Iterable[tuple[int, InputFile]], options: SourceOptions) -> Iterator[WorkUnit]:
    """Cuts numbered input files into units that tile each of them; ``limit`` counts across all files.

    Every file yields at least one unit, also an empty one, and exactly one whose ``last`` is true.

    Raises:
      ValueError: a Parquet file cannot be read.
      OSError: a file cannot be read.
    """
    remaining = options.limit
    for number, file in files:
        if file.format == "parquet":
            planner = _plan_parquet(number, file, options, remaining)
        else:
            found = _lines(file.path) if file.format == "text" else _listing(file.path)
            planner = _plan_lines(number, file, found, options, remaining)
        for unit, references in planner:
            yield unit
            if remaining is not None:
                remaining -= references


_Found = tuple[str, "tuple[int | None, str | None] | None"]


def _lines(path: str) -> Iterator[_Found | None]:
    return (None if uri is None else (uri, None) for uri in read_lines(path))


def _listing(pattern: str) -> Iterator[_Found]:
    return ((file.path, (file.size, file.version)) for file in storage.match(pattern))


def _plan_lines(
    number: int, file: InputFile, found: Iterator[_Found | None], options: SourceOptions, limit: int | None
) -> Iterator[tuple[WorkUnit, int]]:
    """Units of a text file or a listing, each with its number of references."""
    start, planned, refs, row = 0, 0, list[PackedRef](), -1

    def unit(stop: int, *, last: bool) -> tuple[WorkUnit, int]:
        packed, sha256 = pack(refs, with_listing_stat=options.selection.changed)
        name = unit_id(number, start, sha256)
        return WorkUnit(name, file, start, stop, last, packed_refs=packed), len(refs)

    if limit != 0:
        for row, reference in enumerate(found):
            if reference is None or not options.in_sample(reference[0]):
                continue
            # A full unit waits for the next reference, so that what trails belongs to the last unit.
            if len(refs) == options.unit_rows(planned - len(refs)):
                yield unit(row, last=False)
                start, refs = row, []
            refs.append(PackedRef(row, *reference))
            planned += 1
            if planned == limit:
                break
    yield unit(row + 1, last=True)


def _plan_parquet(
    number: int, file: InputFile, options: SourceOptions, limit: int | None
) -> Iterator[tuple[WorkUnit, int]]:
    """Ranges of a Parquet file, each with its number of references as far as ``limit`` needs it."""
    with open_parquet(file.path) as parquet:
        rows = parquet.metadata.num_rows
        whole_groups = options.columns.image is not None and options.shard_rows is None
        group_ends = _group_ends(parquet.metadata) if whole_groups else []
        stop, references = rows, rows
        if limit is not None and options.sample >= 1:
            stop = references = min(rows, limit)
        elif limit is not None:
            taken = list(itertools.islice(_sampled_rows(parquet, file.path, options), limit))
            references = len(taken)
            if references == limit:
                stop = taken[-1] + 1 if taken else 0
    start = 0
    while True:
        # With a sample, a range is as much longer as it takes to hold a unit's worth of references.
        span = round(options.unit_rows(round(start * options.sample)) / options.sample)
        end = min(_group_end(group_ends, start, start + span), stop)
        last = end == stop
        footer_rows = rows if stop == rows else None
        unit = WorkUnit(unit_id(number, start), file, start, end, last, file_rows=footer_rows)
        yield unit, references if last else 0
        if last:
            return
        start = end


def _group_ends(metadata: pq.FileMetaData) -> list[int]:
    """The row after each row group."""
    sizes = (metadata.row_group(group).num_rows for group in range(metadata.num_row_groups))
    return list(itertools.accumulate(sizes))


def _group_end(group_ends: Sequence[int], start: int, end: int) -> int:
    """The end of the row group that ``end`` lies in, unless the unit would be too large.

    Reading a range begins at its row group's first row, which for inline images is most of the cost.
    """
    place = bisect.bisect_left(group_ends, end)
    if place < len(group_ends) and group_ends[place] - start <= MAX_UNIT_ROWS:
        return group_ends[place]
    return end


def _sampled_rows(parquet: pq.ParquetFile, path: str, options: SourceOptions) -> Iterator[int]:
    # The image column too: the path in it names a row that has no URI.
    columns = ParquetColumns(uri=options.columns.uri, image=options.columns.image)
    for row in read_rows(parquet, columns, start=0, stop=parquet.metadata.num_rows, path=path):
        if options.in_sample(row.uri or ref_id(path, row.row)):
            yield row.row


class _PlanUnitsDoFn(beam.DoFn):
    def __init__(self, options: SourceOptions, staging_dir: str) -> None:
        self._options = options
        self._staging_dir = staging_dir

    def start_bundle(self) -> None:
        self._spiller = RefSpiller(self._staging_dir)

    def process(self, files: tuple[tuple[int, InputFile], ...]) -> Iterator[WorkUnit]:
        yield from map(self._spiller.spill, plan_files(files, self._options))


class PlanUnits(beam.PTransform):
    """Input files → work units.

    Files are planned in parallel, except under a limit, which has to count them in order.

    Args:
      files: the input files, in order.
      options: how inputs become references.
      staging_dir: where the references lie that units do not carry; a local folder or a URI.
    """

    def __init__(self, files: Sequence[InputFile], options: SourceOptions, staging_dir: str) -> None:
        super().__init__()
        self._files = tuple(enumerate(files))
        self._options = options
        self._staging_dir = staging_dir

    def expand(self, pbegin: beam.pvalue.PBegin) -> beam.PCollection[WorkUnit]:
        in_order = self._options.limit is not None
        groups = [self._files] if in_order else [(file,) for file in self._files]
        cut = _PlanUnitsDoFn(self._options, self._staging_dir)
        return (
            pbegin
            | "InputFiles" >> beam.Create(groups, reshuffle=False)
            | "Cut" >> beam.ParDo(cut).with_output_types(WorkUnit)
        )
