"""Reading some pages of a column: the values are correct, and the other pages stay unread."""

import io

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from beamlabel.transforms.inputs.parquet.page_index import CompactReader, OffsetIndexes
from beamlabel.transforms.inputs.parquet.sparse_pages import SparseFile

ROWS = 200
IMAGES = [np.random.default_rng(row).bytes(3_000) if row % 17 else None for row in range(ROWS)]
REQUIRED = [image or b"x" for image in IMAGES]
STRUCTS = [{"bytes": image, "path": f"{row}.jpg"} for row, image in enumerate(IMAGES)]
STRUCT = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
COLUMNS = {
    "nullable": (pa.field("image", pa.binary()), IMAGES),
    "required": (pa.field("image", pa.binary(), nullable=False), REQUIRED),
    "struct": (pa.field("image", STRUCT), STRUCTS),
}
PAGES = {
    "small": {"max_rows_per_page": 3, "use_dictionary": False},
    "version 2": {
        "max_rows_per_page": 7,
        "data_page_version": "2.0",
        "compression": "zstd",
        "use_dictionary": False,
    },
    "plain": {"max_rows_per_page": 5, "compression": "none", "use_dictionary": False, "row_group_size": 64},
    "dictionary": {"data_page_size": 500, "write_batch_size": 1, "dictionary_pagesize_limit": 1 << 14},
}


class Counted(io.BytesIO):
    """A file that counts the bytes read."""

    taken = 0

    def read(self, size=-1):
        data = super().read(size)
        self.taken += len(data)
        return data


def written(name, pages, **options):
    field, values = COLUMNS[name]
    buffer = io.BytesIO()
    table = pa.table([pa.array(values, field.type)], schema=pa.schema([field]))
    pq.write_table(table, buffer, **{"write_page_index": True, **PAGES[pages], **options})
    return buffer.getvalue()


def opened(data):
    raw = Counted(data)
    sparse = SparseFile(raw)
    return raw, sparse, pq.ParquetFile(sparse, buffer_size=1 << 12, pre_buffer=False)


@pytest.mark.parametrize("has_index", [True, False])
@pytest.mark.parametrize("rows", [[0], [ROWS - 1], [5, 6, 7, 150], list(range(ROWS))], ids=str)
@pytest.mark.parametrize("pages", PAGES)
@pytest.mark.parametrize("name", COLUMNS)
def test_the_rows_that_are_wanted_are_read_as_they_are(name, pages, rows, has_index, monkeypatch):
    monkeypatch.setattr("beamlabel.transforms.inputs.parquet.page_index._WORTH_BYTES", 0)
    raw, sparse, file = opened(written(name, pages, write_page_index=has_index, write_statistics=False))
    values = COLUMNS[name][1]
    first, before = 0, raw.taken
    for group in range(file.num_row_groups):
        count = file.metadata.row_group(group).num_rows
        within = [row - first for row in rows if first <= row < first + count]
        if within:
            assert sparse.show_rows(file, group, 0, within)
            leaf = "image.bytes" if name == "struct" else "image"
            batches = file.iter_batches(16, row_groups=[group], columns=[leaf])
            found = [value for batch in batches for value in batch.column("image").to_pylist()]
            sparse.show_all()
            assert len(found) == count
            for row in within:
                value = found[row]["bytes"] if name == "struct" else found[row]
                assert value == (values[first + row]["bytes"] if name == "struct" else values[first + row])
        first += count
    if len(rows) < 5:
        assert raw.taken - before < ROWS * 3_000 / 4
    assert file.read().column("image").to_pylist() == values


@pytest.mark.parametrize("changes", [{"write_page_index": False}, {}], ids=["small pages", "a list"])
def test_nothing_changes_if_pages_cannot_be_left_out(changes):
    if changes:
        data = written("nullable", "small", **changes)
    else:
        buffer = io.BytesIO()
        pq.write_table(pa.table({"image": [[b"1", b"2"], []]}), buffer, write_page_index=True)
        data = buffer.getvalue()
    _, sparse, file = opened(data)
    assert not sparse.show_rows(file, 0, 0, [1])
    assert file.read() == pq.read_table(io.BytesIO(data))


def test_an_index_that_contradicts_the_file_is_not_used():
    data = bytearray(written("nullable", "small"))
    _, _, file = opened(bytes(data))
    pages = OffsetIndexes(io.BytesIO(data)).pages(io.BytesIO(data), 0, 0)
    assert pages is not None
    assert [page.first_row for page in pages] == list(range(0, ROWS, 3))
    chunk = file.metadata.row_group(0).column(0)
    assert pages[0].offset == chunk.data_page_offset
    # The first row of the second page, 3, is zigzag 6. It is replaced with that of the third page.
    index = data.rindex(bytes([0x16, 6, 0]))
    data[index + 1] = 12
    _, sparse, file = opened(bytes(data))
    assert not sparse.show_rows(file, 0, 0, [1])


@pytest.mark.parametrize("data", [b"", b"PAR1", b"\xff" * 20 + b"PAR1", b"\x15", b"\x19\xff"], ids=repr)
def test_damaged_data_are_an_error_and_no_crash(data):
    with pytest.raises(ValueError):
        CompactReader(data).struct()
    with pytest.raises((ValueError, OSError)):
        OffsetIndexes(io.BytesIO(data))


def test_reading_is_that_of_a_file():
    data = bytes(range(200))
    file = SparseFile(io.BytesIO(data))
    assert file.read() == data
    file.seek(10)
    assert (file.read(5), file.tell()) == (data[10:15], 15)
    file.seek(-3, io.SEEK_END)
    assert (file.read(10), file.read(1)) == (data[-3:], b"")
