"""The values that flow through the pipeline: frozen dataclasses, importable by every worker.

An image's path is ``ImageRef → LoadedImage → Prediction``. A ``Failure`` replaces any of them and travels along to the
sink, and a ``UnitEnd`` follows the last element of its work unit.
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
    """How to read a file of CSV or JSON lines, as determined by the launcher.

    Attributes:
      schema: names and types of columns: a serialized Arrow schema in base64.
      delimiter: one character; None for JSON lines.
      data_start: offset of the first record in the text, after a byte order mark; the header is not a record.
      width: number of columns in a CSV record.
      places: indices of the schema's columns among them, from 0; units carry only columns that are read. Empty for JSON
        lines.
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
      format: ``text``, ``parquet``, ``images``, ``tar``, ``zip``, or another format of ``inputs.sources``.
      size: size in bytes, if the listing has it.
      version: generation, ETag or modification time, if the listing has it.
      table: the table format of ``csv``, ``tsv`` and ``jsonl``; else None.
      rows: the row count of ``embeddings``, from the manifest of its output; else None.
    """

    path: str
    format: str
    size: int | None = None
    version: str | None = None
    table: TableFormat | None = None
    rows: int | None = None


@dataclass(frozen=True)
class FileRange:
    """Rows of one input file, in the range from ``start`` to ``stop``.

    Attributes:
      input_path: path of the file.
      start, stop, last, file_rows: see ``WorkUnit``.
    """

    input_path: str
    start: int
    stop: int
    last: bool
    file_rows: int | None = None


@dataclass(frozen=True)
class WorkUnit:
    """A range of one input file, or several small files; nothing else is ever shuffled.

    Attributes:
      unit_id: sorts in input order, is unique in a plan, and is valid in a file name.
      input_file: the file with the range.
      start: first row of the range, counted from 0 (lines of a text file, rows of a Parquet file, places in a listing).
      stop: the row after the last one.
      last: whether the file, or ``--limit``, ends at ``stop``.
      file_rows: row count in the Parquet footer, else None.
      packed_refs, refs_path: the references themselves, for text, listings and compressed tables, or the staged file
        with them (see ``packed_refs``). Both are None for Parquet, whose worker reads the range itself, so that image
        bytes are never shuffled.
      byte_range: first byte of the range and the byte after its last one, in files that are read by bytes.
      most_references: number of references that count, for a Parquet range that may end within a list, for example
        because of ``--limit``.
      left_out: number of files in a listing that are not references, by cause, between the previous unit and this one.
      parts: whole small files that share a unit, each as a unit of its own; then ``input_file`` is that of the first,
        and the range covers all references. Empty for a range of one file.
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
    """The element of the user's pipeline that a reference was made from; its outcome is returned in that form.

    Attributes:
      element: the original element.
      timestamp: Beam's timestamp of the element: RunInference's batches have others.
    """

    element: Any
    timestamp: Any = None


@dataclass(frozen=True)
class Known:
    """The results of earlier runs for an image whose size or version differs, or is unknown until it is fetched.

    If the fetched image is that of the row, it is skipped as ``unchanged``; if it is that of the failure, as
    ``known_failure``.

    Attributes:
      row: the first 64 bits of the ``content_hash`` of its newest row; 0 for none.
      failure: the first 64 bits of the ``content_hash`` of its newest failure; 0 for none.
    """

    row: int = 0
    failure: int = 0


@dataclass(frozen=True)
class ImageRef:
    """One input row.

    Attributes:
      uri: the URI as the user wrote it.
      ref_id: ``input file#row``, to join results with the input.
      location: absolute path or URI of the bytes.
      row: the row's place in its file, which orders rows in a shard.
      unit_id: the row's work unit; None outside the labeling job.
      data: the encoded image itself, if the input has it inline.
      member: the place of the image in an archive, from which it is read by range.
      passthrough: values of the kept columns, in the order of the options, each an Arrow array of length one: not
        every Arrow value has a counterpart in Python, such as a date in the year 300,000.
      listing_stat: size in bytes and version, if the listing that found the image has them and they are needed.
      image_id: identity of the image, see ``storage.identity``; None for an inline image that is not loaded yet, and
        outside the labeling job until the image is loaded.
      origin: the element that it was made from; None in the labeling job.
      known: results of earlier runs for its content; None if there are none.
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
    """The facts about the source image.

    Attributes:
      width, height: pixels, after EXIF rotation and before crop and resize.
      format: lower case, such as ``jpeg`` or ``png``.
      source_bytes: size of the encoded image.
      source_version: generation, ETag or modification time.
      content_hash: hash of the encoded image, see ``storage.identity``.
      color_converted: whether a color profile other than sRGB was applied.
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
    """The module's result for one image.

    Attributes:
      ref: the input row; its inline ``data`` is dropped.
      info: facts about the source image.
      class_ids: int32[k] indices into the logits, best first; None without logits.
      scores: float32[k]; None without logits.
      labels: k names; None if the classes have no names.
      embedding: float32[D]; None without features.
      computed_by: engine and precision that computed the numbers, such as ``litert float32``; empty if unknown.
      pixels: the pixels of the ``LoadedImage``, if a report needs them; the sink, which is in the same fused stage,
        takes its few thumbnails from them and drops them.
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
    """An input row without a prediction; one line of the failure shard.

    Attributes:
      uri: the URI as the user wrote it; None if the row has none.
      ref_id, row, unit_id, image_id, origin: as in the ``ImageRef``.
      stage, reason, detail: where and why it failed; ``detail`` is one line for people.
      source_bytes, source_version, content_hash: facts about the encoded image, see ``ImageInfo``; None if it was not
        fetched.
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
    """An input row whose image was fetched, but which earlier runs have already processed.

    Attributes:
      ref: the input row; its inline ``data`` is dropped.
      reason: ``unchanged`` or ``known_failure``.
      source_bytes, source_version, content_hash: facts about the encoded image, see ``ImageInfo``.
    """

    ref: ImageRef
    reason: SkipReason
    source_bytes: int
    source_version: str | None
    content_hash: str


@dataclass(frozen=True)
class UnitEnd:
    """Follows a unit's elements and states how many of them the sink must see before it closes the unit.

    Attributes:
      unit: the unit, without its packed references.
      sent: references and failures sent into the stream; each row of ``EmbeddedRows`` counts.
      skipped: references skipped on purpose; ``sent + skipped`` is the unit's input.
      skipped_by_reason: the skipped references by ``SkipReason``; the rest are ``labeled``.
    """

    unit: WorkUnit
    sent: int
    skipped: int = 0
    skipped_by_reason: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class FileRecord:
    """A file that a unit staged: ``kind`` is ``data``, ``failures``, ``unchanged`` or ``summary`` (see
    ``unit_summary``); or a file that the commit staged: ``deleted``.

    ``computed_by`` is that of a data file's predictions, see ``Prediction``; None if unknown. ``started_at`` and
    ``finished_at``, in seconds since 1970 by the worker's clock, are the times when the sink saw the unit's first and
    last element. Files that differ only in these two times are equal.
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

    ``input = predicted + sum(failed.values()) + skipped`` holds, or the record cannot be created. ``ranges``: the
    covered rows. ``out_of_time``: the run's time limit was reached, and the whole unit was skipped; such a record is
    never staged. ``color_converted``: number of predicted images whose colors were converted to sRGB. ``left_out``:
    files of a listing that are not input, by cause. ``skipped_by_reason`` is that of ``UnitEnd``, plus images that were
    skipped after they were fetched. ``relabeled``: number of predicted images for which only the head ran, on the
    features of earlier rows.
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
        """The inverse of ``to_json``; raises ``ShapeError`` if the value is not a record."""
        check(value, UNIT_RECORD)
        try:
            files = tuple(FileRecord(**file) for file in value["files"])
            ranges = tuple(FileRange(**one) for one in value["ranges"])
            return cls(**{**value, "files": files, "ranges": ranges})
        except TypeError as error:  # a key that a record does not have
            raise ShapeError(str(error)) from error


# The elements between the steps. They are unions, not a base class: each step handles the types it supports, hands
# failures and unit ends through, and refuses the rest. In the job they travel in a ``Block``, which may also hold
# ``PredictionBlock``s.
Opened = Union[ImageRef, EmbeddedRows, Failure, UnitEnd]
Loaded = Union[LoadedImage, EmbeddedRows, Failure, Skipped, UnitEnd]
Labeled = Union[Prediction, LabeledRows, Failure, Skipped, UnitEnd]


def unknown_element(step: str, element: object, *expected: type[object]) -> str:
    """The message of a ``TypeError`` for an element that a step does not support."""
    kind = type(element)
    names = " or ".join(each.__name__ for each in expected)
    return f"{step} got an element of type {kind.__module__}.{kind.__qualname__}; it takes {names}"


def unit_id(number: int, start: int, sha256: str | None = None) -> str:
    """The unit's name. Packed references add their content: a listing may change between runs, and then data staged
    for the same place belongs to another unit."""
    place = f"{number:05d}-{start:012d}"
    return place if sha256 is None else f"{place}-{sha256[:8]}"
