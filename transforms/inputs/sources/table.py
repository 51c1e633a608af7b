"""CSV, TSV and JSON lines: one reference per record.

A unit of a plain file is a range of its bytes, which its worker reads. A compressed file has no such ranges, so a unit
carries its records, deflated, like a unit of a text file carries its references.
"""

from __future__ import annotations

import hashlib
import struct
import zlib
from collections.abc import Iterator

import pyarrow as pa

from beamlabel.transforms import storage
from beamlabel.transforms.inputs.kept_columns import KeptReader
from beamlabel.transforms.inputs.sources.source import Planned, Source, SourceOptions, ref_id
from beamlabel.transforms.inputs.tables.table_rows import TableReader, TableRow, batches
from beamlabel.transforms.inputs.text_blocks import CutLine, file_range, open_text, skip
from beamlabel.transforms.records import (
    Failure,
    ImageRef,
    InputFile,
    Reason,
    Stage,
    TableFormat,
    WorkUnit,
    unit_id,
)
from beamlabel.transforms.storage.identity import image_id
from beamlabel.transforms.storage.uris import resolve

# The largest size of a unit's records, not counting the last one.
_CARRIED_BYTES = 8 << 20
# Row, bytes that follow, and, for a cut record, its original bytes.
_FRAME = struct.Struct("<qqq")
_HEAD_BYTES = 1 << 18
_INFLATED_BYTES = 1 << 16


class TableSource(Source):
    """Records of CSV or JSON lines, from 0, not counting the header and blank lines."""

    def plan(
        self, number: int, file: InputFile, options: SourceOptions, limit: int | None
    ) -> Iterator[Planned]:
        reader, table = _reader(file, options), _table(file)
        with open_text(file.path) as text:
            start = None if text.offset is None else text.offset + table.data_start
            cut = _Cut(number, file, start)
            if limit != 0:
                blocks = skip(text.blocks, table.data_start)
                yield from _units(cut, reader.rows(blocks), options, limit)
            yield cut.unit(last=True)

    def refs(self, unit: WorkUnit, options: SourceOptions) -> Iterator[ImageRef | Failure]:
        reader = _reader(unit.input_file, options)
        kept = KeptReader(reader.schema, options.columns.kept, unit.input_file.path)
        path = unit.input_file.path
        rows = _carried(unit, reader) if unit.byte_range is None else _in_range(unit, reader)
        for batch in batches(row for row in rows if options.in_sample(row.uri or ref_id(path, row.row))):
            good = [row for row in batch if row.problem is None]
            columns: list[pa.Array] = []
            if good and options.columns.kept:
                columns = list(kept.read(reader.kept(good), good[0].row))
            place = 0
            for row in batch:
                values = tuple(column.slice(place, 1) for column in columns) if row.problem is None else ()
                place += row.problem is None
                yield _reference(row, unit, options, values)

    def rows(self, unit: WorkUnit) -> int | None:
        return unit.stop - unit.start

    def estimate(self, file: InputFile, options: SourceOptions) -> int:
        with open_text(file.path) as text:
            head = next(text.blocks, b"")
            if text.offset is not None:
                head = head[:_HEAD_BYTES]
            whole = len(head) < _HEAD_BYTES
            used = len(head) if text.offset is not None else max(text.file.tell(), 1)
            rows = sum(1 for _ in _reader(file, options).rows(skip(iter([head]), _table(file).data_start)))
        return rows if whole else round(rows * max(file.size or 0, used) / used)


def _table(file: InputFile) -> TableFormat:
    if file.table is None:
        raise ValueError(f"{file.path}: its columns were not described")
    return file.table


def _reader(file: InputFile, options: SourceOptions) -> TableReader:
    return TableReader(_table(file), options.columns, file.path)


class _Cut:
    """The unit in planning; ``start`` is its first byte in the file, None if units carry records."""

    def __init__(self, number: int, file: InputFile, start: int | None) -> None:
        self._number, self.file, self._start = number, file, start
        self._first_row = self.next_row = 0
        self.references = 0
        self._begin()

    def _begin(self) -> None:
        self._sha256, self._bytes, self.carried_bytes = hashlib.sha256(), 0, 0
        self._deflate = zlib.compressobj()
        self._packed = bytearray()

    def add(self, row: TableRow, *, is_reference: bool) -> None:
        self.next_row = row.row + 1
        self.references += is_reference
        if self._start is not None:
            self._bytes += row.blank + row.size
            self._sha256.update(_hashed(row))
        elif is_reference:
            cut_from = row.size if isinstance(row.raw, CutLine) else 0
            frame = _FRAME.pack(row.row, len(row.raw), cut_from) + row.raw
            self._sha256.update(frame)
            self._packed += self._deflate.compress(frame)
            self.carried_bytes += len(frame)

    def unit(self, *, last: bool) -> Planned:
        """Ends the unit here, and begins the next one."""
        byte_range = None if self._start is None else (self._start, self._start + self._bytes)
        unit = WorkUnit(
            unit_id(self._number, self._first_row, self._sha256.hexdigest()),
            self.file,
            self._first_row,
            self.next_row,
            last,
            packed_refs=None if byte_range else bytes(self._packed + self._deflate.flush()),
            byte_range=byte_range,
        )
        planned = Planned(unit, self.references)
        self._first_row, self.references = self.next_row, 0
        self._start = None if byte_range is None else byte_range[1]
        self._begin()
        return planned


def _units(
    cut: _Cut, rows: Iterator[TableRow], options: SourceOptions, limit: int | None
) -> Iterator[Planned]:
    """All units except the last, which stays in ``cut``."""
    path = cut.file.path
    before = 0
    for row in rows:
        is_reference = options.in_sample(row.uri or ref_id(path, row.row))
        full = cut.references >= options.unit_rows(before) or cut.carried_bytes >= _CARRIED_BYTES
        # A full unit waits for the next reference, so that trailing places belong to the last unit.
        if full and is_reference:
            before += cut.references
            yield cut.unit(last=False)
        cut.add(row, is_reference=is_reference)
        if before + cut.references == limit:
            return


def _in_range(unit: WorkUnit, reader: TableReader) -> Iterator[TableRow]:
    assert unit.byte_range is not None
    path, sha256, row = unit.input_file.path, hashlib.sha256(), unit.start
    for found in reader.rows(file_range(path, *unit.byte_range), unit.start):
        row = found.row + 1
        sha256.update(_hashed(found))
        yield found
    if row != unit.stop or not unit.unit_id.endswith(sha256.hexdigest()[:8]):
        raise ValueError(f"{path}: rows {unit.start} to {unit.stop} have changed since the run was planned")


def _hashed(row: TableRow) -> bytes:
    """Shows a change of a record, and of its place after the previous one."""
    return b"%d %d " % (row.blank, row.size) + row.raw


def _carried(unit: WorkUnit, reader: TableReader) -> Iterator[TableRow]:
    packed = unit.packed_refs
    if packed is None and unit.refs_path is not None:
        packed = storage.read_bytes(unit.refs_path)
    if packed is None:
        raise ValueError(f"unit {unit.unit_id} of {unit.input_file.path} has no records")
    for row, raw in _inflated(packed):
        if isinstance(raw, CutLine):
            yield reader.cut_row(row, raw)
        else:
            yield from reader.rows(iter([raw]), row)


def _inflated(packed: bytes) -> Iterator[tuple[int, bytes]]:
    """Row and bytes of each record."""
    text, inflate = b"", zlib.decompressobj()

    def blocks() -> Iterator[bytes]:
        waiting = packed
        while waiting:
            yield inflate.decompress(waiting, _INFLATED_BYTES)
            waiting = inflate.unconsumed_tail
        yield inflate.flush()

    for block in blocks():
        text += block
        at = 0
        while len(text) >= at + _FRAME.size:
            row, length, cut_from = _FRAME.unpack_from(text, at)
            start = at + _FRAME.size
            if len(text) < start + length:
                break
            raw = text[start : start + length]
            yield row, CutLine(raw, cut_from) if cut_from else raw
            at = start + length
        text = text[at:]


def _reference(
    row: TableRow, unit: WorkUnit, options: SourceOptions, kept: tuple[pa.Array, ...]
) -> ImageRef | Failure:
    identity = ref_id(unit.input_file.path, row.row)
    if row.problem is not None:
        detail, reason = row.problem
        return Failure(None, identity, Stage.OPEN, reason, detail, row.row, unit.unit_id)
    if row.uri is None:
        return Failure(None, identity, Stage.OPEN, Reason.NULL_URI, "the URI is empty", row.row, unit.unit_id)
    location = resolve(row.uri, options.base_dir)
    return ImageRef(
        row.uri, identity, location, row.row, unit.unit_id, passthrough=kept, image_id=image_id(location)
    )
