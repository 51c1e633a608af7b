"""The interface of a kind of input, and the options that all kinds share."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

from beamlabel.transforms.inputs.parquet_source import ParquetColumns
from beamlabel.transforms.inputs.selection import SelectionOptions
from beamlabel.transforms.inputs.sources.path_filter import PathFilter
from beamlabel.transforms.records import Failure, ImageRef, InputFile, WorkUnit
from beamlabel.transforms.storage.uris import public_uri, sample_hash

MAX_UNIT_ROWS = 10_000
MIN_UNIT_ROWS = 64
# By default, a unit is a 64th of the file's references before it: small inputs are cut finely enough for every worker,
# large ones soon reach the full size, and the first unit needs no total.
_GROWTH = 64


@dataclass(frozen=True)
class SourceOptions:
    """How inputs become references.

    Attributes:
      base_dir: directory of relative references; absolute.
      columns: the columns to read from inputs with columns.
      limit: the largest total number of references; None: all.
      sample: a URI is selected if its hash is below this; 1.0: all.
      shard_rows: references in a unit; None for the growing default.
      min_unit_rows: the smallest default number of references in a unit.
      files: selects files of a listing and members of an archive.
      max_bytes: limit for an image that a source has to read itself, in bytes.
      selection: selects the references that count, and those to label.
      billing_project: pays for a worker's requests to ``gs://``; None: the buckets' own.
    """

    base_dir: str
    columns: ParquetColumns = field(default_factory=ParquetColumns)
    limit: int | None = None
    sample: float = 1.0
    shard_rows: int | None = None
    min_unit_rows: int = MIN_UNIT_ROWS
    files: PathFilter = field(default_factory=PathFilter)
    max_bytes: int = 64 << 20
    selection: SelectionOptions = field(default_factory=SelectionOptions)
    billing_project: str | None = None

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
        return min(max(rows_before // _GROWTH, self.min_unit_rows), MAX_UNIT_ROWS)


class Planned(NamedTuple):
    """A planned unit.

    Attributes:
      unit: the unit.
      references: its largest number of references. With a limit, the sum over the file is exact.
    """

    unit: WorkUnit
    references: int


class Source(ABC):
    """A kind of input: its file → units → references."""

    @abstractmethod
    def plan(
        self, number: int, file: InputFile, options: SourceOptions, limit: int | None
    ) -> Iterator[Planned]:
        """Cuts a file into units that tile it; the last one has ``last``.

        Args:
          number: the file's place among the inputs, for the units' names.
          file: of this kind.
          options: how inputs become references.
          limit: the largest number of references after ``--sample``; None: all. 0 makes one empty unit.

        Raises:
          ValueError, OSError: the file cannot be read.
        """

    @abstractmethod
    def refs(self, unit: WorkUnit, options: SourceOptions) -> Iterator[ImageRef | Failure]:
        """The references of a unit that ``--sample`` keeps, in the order of their rows.

        Raises:
          ValueError: the file has changed since it was planned.
          OSError: it cannot be read.
        """

    def wanted_refs(
        self, unit: WorkUnit, options: SourceOptions, is_wanted: Callable[[str], bool], left_out: Counter[str]
    ) -> Iterator[ImageRef | Failure]:
        """The wanted references of a unit; a source that can skip the images of the others does so.

        Args:
          unit, options: see ``refs``.
          is_wanted: of a ``ref_id``.
          left_out: gets the number of rows without a reference, by cause, as far as rows are read.

        Raises:
          ValueError, OSError: see ``refs``.
        """
        return (ref for ref in self.refs(unit, options) if is_wanted(ref.ref_id))

    def count(
        self, unit: WorkUnit, options: SourceOptions, is_wanted: Callable[[str], bool], left_out: Counter[str]
    ) -> int:
        """The number of references from ``wanted_refs``; a source that can count without reading images does so.

        Raises:
          ValueError, OSError: see ``refs``.
        """
        return sum(1 for _ in self.wanted_refs(unit, options, is_wanted, left_out))

    def rows(self, unit: WorkUnit) -> int | None:
        """The number of references in a unit without ``--sample``, if it is known without reading; else None."""
        return None

    @abstractmethod
    def estimate(self, file: InputFile, options: SourceOptions) -> int:
        """The approximate number of references in a file, for the progress display.

        Raises:
          OSError, ValueError: it cannot be read.
        """


def ref_id(path: str, row: int) -> str:
    """``input file#row``."""
    return f"{public_uri(path)}#{row}"
