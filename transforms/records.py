"""The values that flow through the pipeline: frozen dataclasses, importable by every worker.

One image's way is ``ImageRef → LoadedImage → Prediction``; a ``Failure`` takes the place of any of
them and rides along to the sink, and a ``UnitEnd`` follows the last element of its work unit.
Nothing here imports Beam, TensorFlow or pyarrow.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import Any, Union

import numpy as np

from beamlabel.transforms.archive_member import Member
from beamlabel.transforms.reasons import ImageError as ImageError
from beamlabel.transforms.reasons import Reason as Reason
from beamlabel.transforms.reasons import SkipReason as SkipReason
from beamlabel.transforms.reasons import Stage as Stage
from beamlabel.transforms.row_batches import Block as Block
from beamlabel.transforms.row_batches import EmbeddedRows as EmbeddedRows
from beamlabel.transforms.row_batches import LabeledRows as LabeledRows
from beamlabel.transforms.row_batches import PredictionBlock as PredictionBlock
from beamlabel.transforms.shapes import UNIT_RECORD, ShapeError, check


@dataclass(frozen=True)
class TableFormat:
    """How a file of CSV or JSON lines is read, as the launcher has found it.

    Attributes:
      schema: names and types of columns: an Arrow schema, serialized, in base64.
      delimiter: one character; None for JSON lines.
      data_start: bytes of the text, after a byte order mark, before its first record; the header is none.
      width: how many columns a record of CSV has.
      places: of the schema's columns among them, from 0; units carry only what is read. Empty for JSON lines.
    """

    schema: str
    delimiter: str | None = None
    data_start: int = 0
    width: int = 0
    places: tuple[int, ...] = ()


@dataclass(frozen=True)
class InputFile:
    """One matched file, or with ``format="images"`` one pattern whose matches are the images.

    Attributes:
      path: absolute local path or URI.
      format: ``text``, ``parquet``, ``images``, ``tar``, ``zip``, or another that ``inputs.sources`` knows.
      size: bytes, where the listing told it.
      version: generation, ETag or modification time, where the listing told it.
      table: of ``csv``, ``tsv`` and ``jsonl``; else None.
      rows: of ``embeddings``, as the manifest of its output tells it; else None.
    """

    path: str
    format: str
    size: int | None = None
    version: str | None = None
    table: TableFormat | None = None
    rows: int | None = None


@dataclass(frozen=True)
class FileRange:
    """Rows of one input file, whose range is ``start`` to ``stop``.

    Attributes:
      input_path: the file's.
      start, stop, last, file_rows: see ``WorkUnit``.
    """

    input_path: str
    start: int
    stop: int
    last: bool
    file_rows: int | None = None


@dataclass(frozen=True)
class WorkUnit:
    """A range of one input file, or several small files; the only thing that is ever shuffled.

    Attributes:
      unit_id: sorts in input order, unique in a plan, fit for a file name.
      input_file: the file that the range lies in.
      start: first row of the range, counted from 0 (lines of a text file, rows of a Parquet file,
        places in a listing).
      stop: the row after the last one.
      last: whether the file ends at ``stop``, or ``--limit`` does.
      file_rows: what the Parquet footer says, else None.
      packed_refs, refs_path: the references themselves, for text, listings and compressed tables, or the staged file
        that holds them (see ``packed_refs``). Both are None for Parquet, whose worker reads the range itself, so that
        image bytes are never shuffled.
      byte_range: first byte of the range and the byte after its last one, in files that are read so.
      most_references: of a Parquet range that may end within a list, as ``--limit`` does: how many count.
      left_out: how many files of a listing are no references, by cause; of those between the last unit and this one.
      parts: whole small files that share a unit, each as a unit of its own; then ``input_file`` is the first one's, and
        the range is that of all references. Empty for a range of one file.
    """

    unit_id: str
    input_file: InputFile
    start: int
    stop: int
    last: bool
    file_rows: int | None = None
    packed_refs: bytes | None = field(default=None, repr=False)
    refs_path: str | None = None
    byte_range: tuple[int, int] | None = None
    most_references: int | None = None
    left_out: tuple[tuple[str, int], ...] = ()
    parts: tuple[WorkUnit, ...] = ()

    @property
    def ranges(self) -> tuple[FileRange, ...]:
        """The rows that the unit covers, file by file."""
        if self.parts:
            return tuple(one for part in self.parts for one in part.ranges)
        return (FileRange(self.input_file.path, self.start, self.stop, self.last, self.file_rows),)


@dataclass(frozen=True)
class Origin:
    """The element that a reference was made of in somebody's own pipeline; its outcome is given back in that form.

    Attributes:
      element: as it came in.
      timestamp: Beam's, of the element: RunInference's batches have others.
    """

    element: Any
    timestamp: Any = None


@dataclass(frozen=True)
class Known:
    """What earlier runs know of an image whose size or version differs, or cannot be told without fetching it.

    If the fetched image is that of the row, it is skipped as ``unchanged``; if it is that of the failure, as
    ``known_failure``.

    Attributes:
      row: the first 64 bits of the ``content_hash`` of its newest row; 0 for none.
      failure: likewise of its newest failure.
    """

    row: int = 0
    failure: int = 0


@dataclass(frozen=True)
class ImageRef:
    """One input row.

    Attributes:
      uri: what the user wrote.
      ref_id: ``input file#row``, the join back to the input.
      location: where the bytes are: absolute path or URI.
      row: the row's place in its file, the order of rows in a shard.
      unit_id: the work unit it belongs to; None outside the labeling job.
      data: the encoded image itself, where the input holds it inline.
      member: the place of the image in an archive, from which it is read by range.
      passthrough: values of the kept columns, in the order of the options, each an Arrow array of length one: not
        every Arrow value has a counterpart in Python, such as a date in the year 300,000.
      listing_stat: size in bytes and version, where the listing that found the image told them and they are asked for.
      image_id: identity of the image, see ``storage.identity``; None for an inline image that is not loaded yet, and
        outside the labeling job until the image is loaded.
      origin: the element that it was made of; None in the labeling job.
      known: what earlier runs know of its content; None for nothing.
    """

    uri: str
    ref_id: str
    location: str
    row: int = 0
    unit_id: str | None = None
    data: bytes | None = field(default=None, repr=False)
    passthrough: tuple[Any, ...] = ()
    listing_stat: tuple[int | None, str | None] | None = None
    image_id: str | None = None
    origin: Origin | None = field(default=None, repr=False)
    member: Member | None = None
    known: Known | None = None


@dataclass(frozen=True)
class ImageInfo:
    """What is known of the source image.

    Attributes:
      width, height: pixels, after EXIF rotation and before crop and resize.
      format: lower case, as ``jpeg`` or ``png``.
      source_bytes: size of the encoded image.
      source_version: generation, ETag or modification time.
      content_hash: of the encoded image, see ``storage.identity``.
      color_converted: whether a colour profile other than sRGB was applied.
    """

    width: int
    height: int
    format: str
    source_bytes: int
    source_version: str | None = None
    content_hash: str = ""
    color_converted: bool = False


@dataclass(frozen=True, eq=False)
class LoadedImage:
    """A decoded image: ``pixels`` is uint8[H, W, 3], RGB, of the module's size."""

    ref: ImageRef
    pixels: np.ndarray = field(repr=False)
    info: ImageInfo


@dataclass(frozen=True, eq=False)
class Prediction:
    """What the module says of one image.

    Attributes:
      ref: the input row; its inline ``data`` is dropped.
      info: facts of the source image.
      class_ids: int32[k] indices into the logits, best first; None without logits.
      scores: float32[k]; None without logits.
      labels: k names; None where the classes have no names.
      embedding: float32[D]; None without features.
      computed_by: engine and precision that the numbers come from, such as ``litert float32``; empty where
        nobody said.
      pixels: the ``LoadedImage``'s, where a report wants them; the sink, which is in the same fused stage, takes
        its few thumbnails from them and drops them.
    """

    ref: ImageRef
    info: ImageInfo
    class_ids: np.ndarray | None = None
    scores: np.ndarray | None = None
    labels: tuple[str, ...] | None = None
    embedding: np.ndarray | None = None
    computed_by: str = ""
    pixels: np.ndarray | None = field(default=None, repr=False)


@dataclass(frozen=True)
class Failure:
    """An input row that got no prediction; one line of the failure shard.

    Attributes:
      uri: what the user wrote; None where the row held none.
      ref_id, row, unit_id, image_id, origin: the ``ImageRef``'s.
      stage, reason, detail: where and why; ``detail`` is one line for a human.
      source_bytes, source_version, content_hash: the encoded image's, see ``ImageInfo``; None where it was not fetched.
    """

    uri: str | None
    ref_id: str
    stage: Stage
    reason: Reason
    detail: str
    row: int = 0
    unit_id: str | None = None
    image_id: str | None = None
    source_bytes: int | None = None
    source_version: str | None = None
    content_hash: str | None = None
    origin: Origin | None = field(default=None, repr=False)


@dataclass(frozen=True)
class Skipped:
    """An input row whose image was fetched and turned out to be one that earlier runs have dealt with.

    Attributes:
      ref: the input row; its inline ``data`` is dropped.
      reason: ``unchanged`` or ``known_failure``.
      source_bytes, source_version, content_hash: the encoded image's, see ``ImageInfo``.
    """

    ref: ImageRef
    reason: SkipReason
    source_bytes: int
    source_version: str | None
    content_hash: str


@dataclass(frozen=True)
class UnitEnd:
    """Follows a unit's elements: how many of them the sink has to see before it closes the unit.

    Attributes:
      unit: the unit, without its packed references.
      sent: references and failures that were sent into the stream; of ``EmbeddedRows`` each row counts.
      skipped: references left out on purpose; ``sent + skipped`` is the unit's input.
      skipped_by_reason: of these, by ``SkipReason``; those that it does not tell are ``labeled``.
    """

    unit: WorkUnit
    sent: int
    skipped: int = 0
    skipped_by_reason: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class FileRecord:
    """A file that a unit staged: ``kind`` is ``data``, ``failures``, ``unchanged`` or ``summary`` (see
    ``unit_summary``); or that the commit staged: ``deleted``.

    ``computed_by`` is that of a data file's predictions, see ``Prediction``; None where that is not known.
    ``started_at`` and ``finished_at``, in seconds since 1970 by the worker's clock, are when the sink saw the first
    and the last of the unit. Files that differ in nothing else are equal.
    """

    name: str
    kind: str
    rows: int
    bytes: int
    sha256: str
    computed_by: str | None = None
    started_at: float | None = field(default=None, compare=False)
    finished_at: float | None = field(default=None, compare=False)


@dataclass(frozen=True)
class UnitRecord:
    """The proof that a unit is done, staged after its files.

    ``input = predicted + sum(failed.values()) + skipped`` holds, or the record cannot be made. ``ranges``: the rows
    that it covers. ``out_of_time``: the run's time was over, and the unit was skipped as a whole; such a record is
    never staged. ``color_converted``: of the predicted images those whose colours were converted to sRGB.
    ``left_out``: files of a listing that are no input, by cause. ``skipped_by_reason`` is that of ``UnitEnd``, with
    those that were skipped after they were fetched. ``relabeled``: of the predicted images those of which only the
    head has run, on the features of earlier rows.
    """

    unit_id: str
    ranges: tuple[FileRange, ...]
    input: int
    predicted: int
    failed: dict[str, int]
    skipped: int
    files: tuple[FileRecord, ...]
    out_of_time: bool = False
    color_converted: int = 0
    left_out: dict[str, int] = field(default_factory=dict)
    skipped_by_reason: dict[str, int] = field(default_factory=dict)
    relabeled: int = 0

    def __post_init__(self) -> None:
        outcome = self.predicted + sum(self.failed.values()) + self.skipped
        if self.input != outcome:
            raise ValueError(
                f"unit {self.unit_id}: {self.input} input rows, but {self.predicted} predicted + "
                f"{sum(self.failed.values())} failed + {self.skipped} skipped = {outcome}"
            )

    def to_json(self) -> dict[str, Any]:
        """A plain dict for ``json.dumps``."""
        return dataclasses.asdict(self)

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> UnitRecord:
        """The inverse of ``to_json``; raises ``ShapeError`` for what is none."""
        check(value, UNIT_RECORD)
        try:
            files = tuple(FileRecord(**file) for file in value["files"])
            ranges = tuple(FileRange(**one) for one in value["ranges"])
            return cls(**{**value, "files": files, "ranges": ranges})
        except TypeError as error:  # a key that a record has not
            raise ShapeError(str(error)) from error


# What flows between the steps. Unions, not a base class: each step handles what it knows, hands failures and unit
# ends through, and refuses the rest. In the job they travel in a ``Block``, there with ``PredictionBlock``s.
Opened = Union[ImageRef, EmbeddedRows, Failure, UnitEnd]
Loaded = Union[LoadedImage, EmbeddedRows, Failure, Skipped, UnitEnd]
Labeled = Union[Prediction, LabeledRows, Failure, Skipped, UnitEnd]


def unknown_element(step: str, element: object, *expected: type[object]) -> str:
    """What a step says of an element that it does not know, for a ``TypeError``."""
    kind = type(element)
    names = " or ".join(each.__name__ for each in expected)
    return f"{step} got an element of the type {kind.__module__}.{kind.__qualname__}; it takes {names}"


def unit_id(number: int, start: int, sha256: str | None = None) -> str:
    """Names packed references by their content too: a listing may differ the next time, and then what was staged
    for the same place is another unit's."""
    place = f"{number:05d}-{start:012d}"
    return place if sha256 is None else f"{place}-{sha256[:8]}"
