"""How to read a CSV or JSON lines file, from its beginning: delimiter, column names, place of the first record."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

import pyarrow as pa

from beamlabel.transforms.inputs.image_columns import is_uri_name
from beamlabel.transforms.inputs.tables.csv_records import CsvRecord, csv_records
from beamlabel.transforms.inputs.tables.json_records import JsonRecord, json_records
from beamlabel.transforms.inputs.tables.json_types import JsonTypes
from beamlabel.transforms.inputs.tables.table_rows import encoded_schema
from beamlabel.transforms.inputs.text_blocks import CutLine, head, open_text
from beamlabel.transforms.records import TableFormat

HEAD_BYTES = 1 << 18
DELIMITERS = ",;\t|"
_LOOKED_AT = 1000
# Excel's own way to declare the delimiter.
_SEP = re.compile(rb'"?sep=([^"\r])"?\r?\n', re.IGNORECASE)
_DATA = re.compile(
    r"\s*[-+]?[0-9][0-9.,:eE/ -]*\s*|.*://.*|/.*|.*\.(jpe?g|png|gif|webp|bmp|tiff?|avif|heic)(\?.*)?",
    re.IGNORECASE | re.DOTALL,
)


def describe(path: str, format: str, uri_column: str | None) -> TableFormat:
    """Describes how to read a file; all columns of CSV are strings at this point.

    Args:
      path: of the file.
      format: ``csv``, ``tsv`` or ``jsonl``.
      uri_column: the name from the options, or the place of a column in a file without a header.

    Raises:
      OSError: it cannot be read.
      ValueError: it is not of the format, or is ambiguous.
    """
    with open_text(path) as text:
        if format == "jsonl":
            return _json_lines(_looked_at(text.blocks), path)
        beginning, complete = head(text.blocks, HEAD_BYTES)
    delimiters = "\t" if format == "tsv" else DELIMITERS
    return _csv(beginning, complete, delimiters, uri_column, path)


def first_records(beginning: bytes, complete: bool, delimiter: str) -> list[CsvRecord]:
    """The records at the beginning of a text, without blank lines and without an incomplete record."""
    records = list(csv_records(iter([beginning]), delimiter))
    if not complete:
        # The last record may be incomplete. A cell without an end makes the records after it malformed, too.
        if records and not records[-1].problem:
            records.pop()
        while records and records[-1].problem:
            records.pop()
    return [record for record in records if record.fields or record.problem][:_LOOKED_AT]


def _csv(beginning: bytes, complete: bool, delimiters: str, uri_column: str | None, path: str) -> TableFormat:
    start = 0
    if (sep := _SEP.match(beginning)) is not None:
        delimiters, start = sep[1].decode("latin-1"), sep.end()
    delimiter, records = _delimiter(beginning[start:], complete, delimiters, uri_column, path)
    if not records:
        if not complete:
            raise ValueError(f"{path}: the first record has no end within {HEAD_BYTES} bytes")
        return csv_format([], delimiter, start)
    first = records[0]
    if first.problem:
        raise ValueError(f"{path}: the first line is not readable as CSV: {first.problem}")
    names = first.fields
    if _is_header(names, uri_column, path):
        blank = beginning.index(first.raw, start)
        start = blank + len(first.raw)
    else:
        names = [str(place) for place in range(len(names))]
    try:
        return csv_format(names, delimiter, start)
    except UnicodeEncodeError:
        raise ValueError(f"{path}: the column names are not UTF-8") from None


def csv_format(names: Sequence[str], delimiter: str, data_start: int) -> TableFormat:
    """CSV with columns of strings."""
    schema = encoded_schema(pa.schema([(name, pa.string()) for name in names]))
    return TableFormat(schema, delimiter, data_start, len(names), tuple(range(len(names))))


def _delimiter(
    text: bytes, complete: bool, delimiters: str, uri_column: str | None, path: str
) -> tuple[str, list[CsvRecord]]:
    """The delimiter that splits the text into columns, and the first records; the first delimiter if none does."""
    found: list[tuple[bool, float, str, list[CsvRecord]]] = []
    for delimiter in delimiters:
        records = first_records(text, complete, delimiter)
        if records and (len(records[0].fields) > 1 or len(delimiters) == 1):
            names = records[0].fields
            is_header = uri_column in names or any(map(is_uri_name, names))
            same = sum(len(record.fields) == len(names) for record in records) / len(records)
            found.append((is_header, same, delimiter, records))
    if not found:
        return delimiters[0], first_records(text, complete, delimiters[0])
    found.sort(key=lambda one: one[:2], reverse=True)
    if len(found) > 1 and found[0][:2] == found[1][:2]:
        both = " and ".join(repr(one[2]) for one in found[:2])
        raise ValueError(
            f"{path}: both {both} split its lines into columns; write the file as TSV, or with a first line such as "
            "sep=;"
        )
    return found[0][2], found[0][3]


def _is_header(names: Sequence[str], uri_column: str | None, path: str) -> bool:
    """Whether the first record holds the column names.

    Raises:
      ValueError: it is ambiguous.
    """
    if any(map(is_uri_name, names)) or names == [str(place) for place in range(len(names))]:
        return True
    if uri_column is not None and uri_column.isdecimal() and int(uri_column) < len(names):
        if uri_column not in names or _DATA.fullmatch(names[int(uri_column)]):
            return False
        raise ValueError(
            f"{path}: --uri_column {uri_column} is both a cell of the first line and the place of another column; "
            "give the column a name"
        )
    if uri_column in names:
        return True
    if not any(not name.strip() or _DATA.fullmatch(name) for name in names):
        return True
    if len(names) == 1:
        return False
    shown = ", ".join(name[:40] for name in names[:8])
    raise ValueError(
        f"{path}: the first line does not look like column names: {shown}; if it is data, pass the place of the URI "
        "column, from 0, such as --uri_column 0; if it holds the names, pass one of them as --uri_column; if each "
        "line is a URI, use --input_format text"
    )


def _looked_at(blocks: Iterator[bytes]) -> list[JsonRecord]:
    """The first lines, without blank lines and lines that are too long."""
    found: list[JsonRecord] = []
    size = 0
    for record in json_records(blocks):
        size += len(record.raw)
        if not isinstance(record.raw, CutLine) and (record.value is not None or record.problem):
            found.append(record)
        if len(found) == _LOOKED_AT or (found and size >= HEAD_BYTES):
            break
    return found


def _json_lines(records: Sequence[JsonRecord], path: str) -> TableFormat:
    if records and records[0].value is None:
        raise ValueError(
            f"{path}: the first line is not an object ({records[0].problem}); JSON lines have one object per line; "
            "convert an array with jq -c '.[]'"
        )
    seen: dict[str, JsonTypes] = {}
    for number, record in enumerate(records):
        for name, value in (record.value or {}).items():
            seen.setdefault(name, JsonTypes()).add(value, f"row {number} of {path}")
    return TableFormat(encoded_schema(pa.schema([(name, _type(types)) for name, types in seen.items()])))


def first_json_records(beginning: bytes, complete: bool) -> list[JsonRecord]:
    """The lines at the beginning of a text, without blank lines and without an incomplete line."""
    if not complete:
        beginning = beginning[: beginning.rfind(b"\n") + 1]
    records = json_records(iter([beginning]))
    return [record for record in records if record.value is not None or record.problem][:_LOOKED_AT]


def _type(types: JsonTypes) -> pa.DataType:
    if types.may_be_text:
        return pa.string()  # if it holds URIs, rows with other values fail
    try:
        return types.type()
    except ValueError:
        return pa.null()  # of several kinds; it can neither be kept nor hold URIs
