"""What images really show: a column of the result, or a file that names images and their classes."""

from __future__ import annotations

import csv
import gzip
import io
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

import pyarrow as pa

from beamlabel.pipeline.errors import UsageError
from beamlabel.transforms import storage
from beamlabel.transforms.inputs.file_kinds import content_format
from beamlabel.transforms.inputs.parquet_source import open_parquet
from beamlabel.transforms.inputs.text_blocks import GZIP_MAGIC, read_lines
from beamlabel.transforms.storage.uris import public_uri

# A column of one of these names, in this order, says which image a row is of, and which class.
KEY_COLUMNS = ("ref_id", "uri", "url", "path")
CLASS_COLUMNS = ("truth", "class_id", "class", "label")
_BATCH_ROWS = 65536


@dataclass
class Truth:
    """Classes by image.

    Attributes:
      key: the result's column that tells the image, ``uri`` or ``ref_id``.
      by_id: whether classes are numbers, which index the logits, and not names.
      classes: class by key; what is matched with a row is taken note of.
    """

    key: str
    by_id: bool
    classes: dict[str, str]
    _matched: set[str] = field(default_factory=set, repr=False)

    def find(self, key: str | None) -> str | None:
        """The class of an image; None where it is not known."""
        found = self.classes.get(key) if key is not None else None
        if found is not None and key is not None:
            self._matched.add(key)
        return found

    @property
    def unmatched(self) -> int:
        """How many images have a class here, and neither row nor failure there."""
        return len(self.classes) - len(self._matched)


def read_truth(path: str, column: str | None, *, has_names: bool) -> Truth:
    """Reads a file of classes; all of it is held in memory.

    Args:
      path: Parquet or CSV (``.csv``, ``.tsv``) with a column of ``KEY_COLUMNS`` and one of ``CLASS_COLUMNS``, or
        text: a line an image, then a tab, or where there is none the last space, then the class. Text and CSV
        may be gzipped.
      column: the column of classes; None to look for it.
      has_names: whether the result's classes have names.

    Raises:
      UsageError: the file cannot be read or understood, or names two classes for one image.
    """
    try:
        with storage.open_input(path) as stream:
            head = stream.read(64)
        kind = content_format(head)
        if kind in ("image", "binary"):
            raise UsageError(f"--truth {path!r}: neither Parquet nor text")
        if kind == "parquet":
            key, pairs, whole = _parquet(path, column)
        elif path.lower().removesuffix(".gz").endswith((".csv", ".tsv")):
            key, pairs, whole = _csv(path, column, zipped=head.startswith(GZIP_MAGIC))
        elif column is not None:
            raise UsageError(f"--truth_column {column}: {path} is text, and has no columns")
        else:
            key, pairs, whole = "uri", _text(path), False
        return _gathered(path, key, pairs, whole=whole, has_names=has_names)
    except (OSError, ValueError, csv.Error, EOFError) as error:
        raise UsageError(f"--truth {path!r}: {error}") from error


def _gathered(
    path: str, key: str, pairs: Iterable[tuple[str | None, object]], *, whole: bool, has_names: bool
) -> Truth:
    """``whole``: the column is one of whole numbers, by its type."""
    classes: dict[str, str] = {}
    for image, value in pairs:
        name = "" if value is None else str(value)
        if not image or not name:
            continue
        image = image if key == "ref_id" else public_uri(image)
        if classes.setdefault(image, name) != name:
            raise UsageError(f"--truth {path!r}: two classes of {image!r}: {classes[image]!r} and {name!r}")
    if not classes:
        raise UsageError(f"--truth {path!r}: it names no image and its class")
    by_id = whole or are_ids(classes.values())
    if not (by_id or has_names):
        odd = next(name for name in classes.values() if not name.isdecimal())
        raise UsageError(f"--truth {path!r}: {odd!r} is no class id, and the result's classes have no names")
    if by_id:
        classes = {image: str(int(name)) for image, name in classes.items()}
    return Truth("ref_id" if key == "ref_id" else "uri", by_id, classes)


def are_ids(names: Iterable[str]) -> bool:
    """Whether all are whole numbers, and so class ids."""
    return all(name.isdecimal() for name in names)


def _parquet(path: str, column: str | None) -> tuple[str, Iterator[tuple[str | None, object]], bool]:
    with open_parquet(path) as file:
        schema = file.schema_arrow
    key, value = _columns(schema.names, column, path)
    kind = schema.field(value).type
    check_class_type(kind, value)

    def pairs() -> Iterator[tuple[str | None, object]]:
        with open_parquet(path) as file:
            for batch in file.iter_batches(_BATCH_ROWS, columns=[key, value]):
                yield from zip(batch[key].to_pylist(), batch[value].to_pylist(), strict=True)

    return key, pairs(), pa.types.is_integer(kind)


def check_class_type(kind: pa.DataType, column: str) -> None:
    """Refuses what is no class.

    Raises:
      UsageError: neither text nor whole numbers.
    """
    value = kind.value_type if pa.types.is_dictionary(kind) else kind
    text = pa.types.is_string(value) or pa.types.is_large_string(value) or pa.types.is_string_view(value)
    if not (text or pa.types.is_integer(value)):
        raise UsageError(f"--truth: column {column!r} is {kind}, neither names nor whole numbers")


def _csv(
    path: str, column: str | None, *, zipped: bool
) -> tuple[str, Iterator[tuple[str | None, object]], bool]:
    delimiter = "\t" if ".tsv" in path.lower()[-7:] else ","
    reader = csv.reader(_text_lines(path, zipped=zipped), delimiter=delimiter, strict=True)
    names = next(reader, [])
    key, value = _columns(names, column, path)
    image, of = names.index(key), names.index(value)

    def pairs() -> Iterator[tuple[str | None, object]]:
        for row in reader:
            if row and len(row) != len(names):
                raise ValueError(f"line {reader.line_num} has {len(row)} fields, the first {len(names)}")
            if row:
                yield row[image], row[of]

    return key, pairs(), False


def _columns(names: list[str], column: str | None, path: str) -> tuple[str, str]:
    listing = ", ".join(names) or "none"
    if column is not None and column not in names:
        raise UsageError(f"--truth_column {column}: {path} has the columns {listing}")
    key = next((name for name in KEY_COLUMNS if name in names and name != column), None)
    if key is None:
        raise UsageError(f"--truth {path!r}: a column {' or '.join(KEY_COLUMNS)} is wanted; it has {listing}")
    others = [name for name in names if name != key]
    found = column or next((name for name in CLASS_COLUMNS if name in others), None)
    if found is None and len(others) != 1:
        raise UsageError(f"--truth {path!r}: name the column of classes by --truth_column; it has {listing}")
    return key, found or others[0]


def _text(path: str) -> Iterator[tuple[str | None, object]]:
    for number, line in enumerate(read_lines(path), start=1):
        if line is None:
            continue
        image, _, name = line.partition("\t") if "\t" in line else line.rpartition(" ")
        if not image.strip() or not name.strip():
            raise ValueError(f"line {number} is not an image, a tab or a space, and a class: {line[:80]!r}")
        yield image.strip(), name.strip()


def _text_lines(path: str, *, zipped: bool) -> Iterator[str]:
    with storage.open_input(path) as raw:
        stream = gzip.GzipFile(fileobj=raw) if zipped else raw
        yield from io.TextIOWrapper(stream, encoding="utf-8-sig", newline="")
