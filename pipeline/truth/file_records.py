"""Reads the records of a truth file: image, class and position in the file."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, NamedTuple

import pyarrow as pa

from beamlabel.pipeline.errors import UsageError
from beamlabel.pipeline.truth.class_values import check_class_type
from beamlabel.pipeline.truth.file_columns import FileColumns, find_columns, is_header
from beamlabel.transforms import storage
from beamlabel.transforms.inputs.file_kinds import HEAD_BYTES, content_format
from beamlabel.transforms.inputs.parquet_source import open_parquet
from beamlabel.transforms.inputs.tables.csv_records import csv_records
from beamlabel.transforms.inputs.tables.describe import DELIMITERS, first_records
from beamlabel.transforms.inputs.tables.json_records import json_records
from beamlabel.transforms.inputs.tables.table_kinds import table_by_name
from beamlabel.transforms.inputs.text_blocks import CutLine, head, lines_of, open_text, skip

_BATCH_ROWS = 65536
_LOOKED_AT_BYTES = 1 << 16
_IS_DATA = re.compile(r"(?i).*://.*|/.*|.*\.(jpe?g|png|gif|webp|bmp|tiff?|avif|heic)$")
# Excel's line that sets the delimiter.
_SEP = re.compile(rb'"?sep=([^"\r])"?\r?\n', re.IGNORECASE)


class TruthRecord(NamedTuple):
    """An image and its class, as written in the file.

    Attributes:
      name: name of the image; None or empty if there is none.
      value: text, a whole number, a list of these, or None.
      place: position in the file: ``line 3``, or ``row 3`` of Parquet, counted from 1.
      verdict: verdict of a correction.
    """

    name: Any
    value: Any
    place: str
    verdict: Any = None


@dataclass(frozen=True)
class TruthFile:
    """A truth file whose columns are known.

    Attributes:
      columns: the columns with images and classes.
      are_ids: whether classes are whole numbers by the type of their column.
      records: the records, to be read once.
    """

    columns: FileColumns
    are_ids: bool
    records: Iterator[TruthRecord]


@contextmanager
def open_truth_file(path: str, key: str | None, value: str | None) -> Iterator[TruthFile]:
    """Opens a truth file.

    Args:
      path: Parquet; CSV, TSV or JSON lines by its ending; or other text with one image per line, then a tab, or the
        last space if there is no tab, then the class. Text may be compressed.
      key, value: the columns of images and classes; None to find them.

    Raises:
      UsageError: the file cannot be read or parsed; the message names the line.
    """
    try:
        with storage.open_input(path) as stream:
            kind = content_format(stream.read(HEAD_BYTES))
        if kind not in ("parquet", "text") and not (kind == "binary" and _is_named_as_text(path)):
            raise UsageError(f"--truth {path!r}: neither Parquet nor text")
        if kind == "parquet":
            with open_parquet(path) as file:
                yield _parquet(file, path, key, value)
            return
        with open_text(path) as text:
            beginning, complete = head(text.blocks, _LOOKED_AT_BYTES)
        yield _of_text(beginning, complete, path, key, value)
    except (OSError, ValueError, EOFError, pa.ArrowException) as error:
        raise UsageError(f"--truth {path!r}: {error}") from error


def _is_named_as_text(path: str) -> bool:
    """Whether the path has the ending of text; then the error should name the faulty line."""
    return table_by_name(path) is not None or path.lower().endswith(".txt")


def _parquet(file: Any, path: str, key: str | None, value: str | None) -> TruthFile:
    schema = file.schema_arrow
    columns = find_columns(schema.names, key, value, path)
    kind = schema.field(columns.value).type
    check_class_type(kind, columns.value)
    names = [name for name in (columns.key, columns.value, columns.verdict) if name is not None]

    def records() -> Iterator[TruthRecord]:
        row = 0
        for batch in file.iter_batches(_BATCH_ROWS, columns=names):
            cells = [batch.column(name).to_pylist() for name in names]
            for image, found, *verdict in zip(*cells, strict=True):
                row += 1
                yield TruthRecord(image, found, f"row {row}", *verdict)

    return TruthFile(columns, pa.types.is_integer(kind), records())


def _of_text(beginning: bytes, complete: bool, path: str, key: str | None, value: str | None) -> TruthFile:
    kind = table_by_name(path)
    if kind is None and beginning.lstrip().startswith(b"{"):
        kind = "jsonl"
    if kind == "jsonl":
        return _json_lines(_blocks(path), beginning, complete, path, key, value)
    if kind is not None:
        return _csv(
            _blocks(path), beginning, complete, "\t" if kind == "tsv" else DELIMITERS, path, key, value
        )
    for option, name in (("--truth_key", key), ("--truth_column", value)):
        if name is not None:
            raise UsageError(f"{option} {name}: {path} is text without columns")
    return TruthFile(FileColumns("", "", "uri"), False, _lines(_blocks(path)))


def _blocks(path: str) -> Iterator[bytes]:
    with open_text(path) as text:
        yield from text.blocks


def _csv(
    blocks: Iterator[bytes],
    beginning: bytes,
    complete: bool,
    delimiters: str,
    path: str,
    key: str | None,
    value: str | None,
) -> TruthFile:
    start = 0
    if (sep := _SEP.match(beginning)) is not None:
        delimiters, start = sep[1].decode("latin-1"), sep.end()
    delimiter, names = _header(beginning[start:], complete, delimiters, key, value)
    columns, has_header = _csv_columns(names, key, value, path)
    wanted = [names.index(name) for name in (columns.key, columns.value, columns.verdict) if name is not None]

    def records() -> Iterator[TruthRecord]:
        line, is_first = 1 + beginning[:start].count(b"\n"), has_header
        for raw, fields, problem in csv_records(skip(blocks, start), delimiter):
            place, line = f"line {line}", line + (raw.count(b"\n") or raw.count(b"\r"))
            if problem is None and b"\0" in raw:
                problem = "holds a NUL"
            if problem is not None:
                raise ValueError(f"{place} {problem if problem.startswith('holds') else 'is ' + problem}")
            if not fields:
                continue
            if len(fields) != len(names):
                raise ValueError(f"{place} has {len(fields)} fields, but the first line has {len(names)}")
            if not raw.isascii():
                _check_utf8(raw, place)
            if not is_first:
                yield TruthRecord(
                    fields[wanted[0]], fields[wanted[1]], place, *(fields[n] for n in wanted[2:])
                )
            is_first = False

    return TruthFile(columns, False, records())


def _header(
    text: bytes, complete: bool, delimiters: str, key: str | None, value: str | None
) -> tuple[str, list[str]]:
    """The delimiter that splits the text into columns, and the first record's cells."""
    found: list[tuple[bool, bool, int, str, list[str]]] = []
    for place, delimiter in enumerate(delimiters):
        records = first_records(text, complete, delimiter)
        if records and not records[0].problem:
            names = records[0].fields
            alike = all(len(record.fields) == len(names) for record in records)
            known = len(names) > 1 and is_header(names, key, value)
            found.append((not known, not (alike and len(names) > 1), place, delimiter, names))
    if not found:
        return delimiters[0], []
    *_, delimiter, names = min(found)
    return delimiter, names


def _csv_columns(
    names: Sequence[str], key: str | None, value: str | None, path: str
) -> tuple[FileColumns, bool]:
    """The columns, and whether the first line names them; otherwise the cell that looks like an image is the image."""
    data = [place for place, name in enumerate(names) if _IS_DATA.fullmatch(name.strip())]
    if (
        key is None
        and value is None
        and len(names) == 2
        and len(data) == 1
        and not is_header(names, None, None)
    ):
        image = data[0]
        return FileColumns(names[image], names[1 - image], "uri"), False
    return find_columns(list(names), key, value, path), True


def _check_utf8(raw: bytes, place: str) -> None:
    try:
        raw.decode()
    except UnicodeDecodeError as error:
        raise ValueError(
            f"{place} is not UTF-8 (byte {raw[error.start]:#04x}): save the file as UTF-8; it may be Latin-1"
        ) from None


def _json_lines(
    blocks: Iterator[bytes], beginning: bytes, complete: bool, path: str, key: str | None, value: str | None
) -> TruthFile:
    names: dict[str, None] = {}
    text = beginning if complete else beginning[: beginning.rfind(b"\n") + 1]
    for number, record in enumerate(json_records(iter([text])), start=1):
        if record.problem:
            hint = "; JSON lines have one object per line, as written by jq -c '.[]'" if number == 1 else ""
            raise ValueError(f"line {number} is {record.problem}{hint}")
        names.update(dict.fromkeys(record.value or {}))
    columns = find_columns(list(names), key, value, path)

    def records() -> Iterator[TruthRecord]:
        for number, (_, found, problem) in enumerate(json_records(blocks), start=1):
            if problem:
                raise ValueError(f"line {number} is {problem}")
            if found is not None:
                verdict = found.get(columns.verdict) if columns.verdict else None
                yield TruthRecord(found.get(columns.key), found.get(columns.value), f"line {number}", verdict)

    return TruthFile(columns, False, records())


def _lines(blocks: Iterator[bytes]) -> Iterator[TruthRecord]:
    for number, raw in enumerate(lines_of(blocks), start=1):
        place = f"line {number}"
        if isinstance(raw, CutLine):
            raise ValueError(f"{place} is too long ({raw.size} bytes)")
        if b"\0" in raw:
            raise ValueError(f"{place} holds a NUL")
        _check_utf8(raw, place)
        line = raw.decode().rstrip("\r\n")
        if not line.strip() or line.startswith("#"):
            continue
        image, _, name = line.partition("\t") if "\t" in line else line.rpartition(" ")
        if not image.strip() or not name.strip():
            raise ValueError(
                f"{place} is not an image, a tab or space, and a class: {line[:80]!r}; name CSV, TSV and JSON lines "
                "files .csv, .tsv or .jsonl"
            )
        yield TruthRecord(image.strip(), name.strip(), place)
