"""Whether a text file is a list of URIs, CSV, TSV or JSON lines, by its name and its beginning."""

from __future__ import annotations

import re
from collections.abc import Sequence

from beamlabel.transforms.inputs.image_columns import is_uri_name
from beamlabel.transforms.inputs.tables.csv_records import CsvRecord
from beamlabel.transforms.inputs.tables.describe import DELIMITERS, first_json_records, first_records
from beamlabel.transforms.inputs.text_blocks import head, open_text

_HEAD_BYTES = 1 << 16
_JSON_ENDINGS = (".jsonl", ".ndjson", ".json")
_ENDINGS = {".csv": "csv", ".tsv": "tsv", ".tab": "tsv"}
_COMPRESSED = re.compile(r"\.(gz|gzip|zst|zstd)$")
_IMAGE_NAME = re.compile(
    r"\.(jpe?g|jfif|png|gif|webp|bmp|tiff?|avif|heic|heif|jxl|jp2|ico|svg)(\?.*)?$", re.IGNORECASE
)
_URL = re.compile(r"[a-z][a-z0-9+.-]*://", re.IGNORECASE)
_NAME = re.compile(r"[\w .()#-]{1,64}")
_LABEL = re.compile(r"[\w .:+-]{0,64}")


class Unclear(str):
    """Why the format of a file is ambiguous, and how to resolve it."""

    __slots__ = ()


def table_by_name(path: str) -> str | None:
    """``csv``, ``tsv`` or ``jsonl`` by the ending of a file's name; an ending of a compression may follow it."""
    name = _COMPRESSED.sub("", path.rpartition("/")[2].lower())
    return "jsonl" if name.endswith(_JSON_ENDINGS) else _ENDINGS.get("." + name.rpartition(".")[2])


def table_kind(path: str) -> str:
    """``csv``, ``tsv``, ``jsonl`` or ``text``; ``Unclear`` if it is ambiguous.

    Args:
      path: of a text file.

    Raises:
      OSError: it cannot be read.
      ValueError: it is damaged.
    """
    name = _COMPRESSED.sub("", path.rpartition("/")[2].lower())
    with open_text(path) as text:
        beginning, complete = head(text.blocks, _HEAD_BYTES)
    start = beginning.lstrip()[:1]
    if name.endswith(_JSON_ENDINGS) or start in (b"{", b"["):
        kind = _json_kind(name, beginning, complete)
        if kind is not None:
            return kind
    return table_by_name(path) or _kind_by_content(beginning, complete)


def _json_kind(name: str, beginning: bytes, complete: bool) -> str | None:
    """The kind if the file is JSON or is named so; None if it is neither."""
    records = first_json_records(beginning, complete)
    are_objects = [record.value is not None for record in records]
    is_named = name.endswith(_JSON_ENDINGS)
    if all(are_objects) and (records or is_named):
        other = _ENDINGS.get("." + name.rpartition(".")[2])
        if other and records:
            return Unclear(f"has a name of {other} but holds JSON lines; use --input_format jsonl or {other}")
        return "jsonl"
    # The first line of an object or array over several lines is rarely a URI; a line in brackets may be one.
    first = beginning.lstrip().split(b"\n", 1)[0].strip()
    if not is_named and are_objects[:1] != [True] and first[:2] not in (b"{", b"[", b'{"', b"[{", b'["'):
        return None
    if is_named and not name.endswith(".json") and are_objects[:1] == [True]:
        return "jsonl"  # a malformed line fails by itself
    return Unclear(
        "is not JSON lines, which have one object per line; convert an array with jq -c '.[]', or use --input_format "
        "text to read each line as a URI"
    )


def _kind_by_content(beginning: bytes, complete: bool) -> str:
    if not complete:
        beginning = beginning[: beginning.rfind(b"\n") + 1]
    lines = [line for line in beginning.splitlines() if line.strip() and not line.startswith(b"#")]
    if not lines:
        return "text"
    texts = [line.decode("utf-8", "replace") for line in lines]
    if len(texts) > 1 and is_uri_name(texts[0].strip('"')):
        return _unclear(f"begins with {texts[0]!r}, which may be a column name", "csv")
    for delimiter in DELIMITERS:
        kind = "tsv" if delimiter == "\t" else "csv"
        records = first_records(beginning, True, delimiter)
        width = len(records[0].fields) if records else 0
        if width < 2:
            continue
        same = sum(len(record.fields) == width for record in records)
        if _is_header(records[0].fields):
            if len(records) > 1 and same < 0.9 * len(records):
                return _unclear(
                    f"begins like {kind.upper()}, but its lines differ in their number of columns", kind
                )
            return kind
        # A list may have comment lines; CSV has none.
        records = [record for record in records if not record.raw.startswith(b"#")]
        if same == len(records) and _has_column_of_images(records, texts, delimiter):
            return _unclear(f"seems to have {width} columns of {kind.upper()} in each line", kind)
    return "text"


def _unclear(cause: str, kind: str) -> Unclear:
    return Unclear(
        f"{cause}; use --input_format {kind} if that is right, or --input_format text if each line is a URI"
    )


def _is_header(names: Sequence[str]) -> bool:
    return any(map(is_uri_name, names)) and all(
        _NAME.fullmatch(name) and not _IMAGE_NAME.search(name) for name in names if name
    )


def _has_column_of_images(records: Sequence[CsvRecord], lines: Sequence[str], delimiter: str) -> bool:
    """Whether one cell of each record is an image, but the whole line is not."""
    if any(record.problem for record in records):
        return False
    quoted = all(line.startswith('"') for line in lines)
    for place in range(len(records[0].fields)):
        cells = [record.fields[place].strip() for record in records]
        others = [
            cell.strip() for record in records for other, cell in enumerate(record.fields) if other != place
        ]
        by_name = all(_IMAGE_NAME.search(cell) for cell in cells)
        by_scheme = all(_URL.match(cell) for cell in cells)
        if not by_name and not by_scheme:
            continue
        if quoted or (place > 0 and by_scheme) or delimiter == "\t":
            return True
        # The rest of the line after the image is not a part of its path or query.
        if all(_LABEL.fullmatch(cell) for cell in others) and not any(map(_IMAGE_NAME.search, lines)):
            return not any("?" in cell for cell in cells)
    return False
