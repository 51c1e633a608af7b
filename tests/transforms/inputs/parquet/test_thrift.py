"""Parquet headers and indexes that would take forever, and invalid lengths."""

import io
import itertools
import random
import struct

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from beamlabel.transforms.inputs.parquet.delta_lengths import delta_lengths
from beamlabel.transforms.inputs.parquet.page_guard import (
    Chunk,
    DamagedPageError,
    LargePageError,
    PageGuard,
    bounded_batches,
)
from beamlabel.transforms.inputs.parquet.page_index import (
    CompactReader,
    OffsetIndexes,
    page_rows,
    walk_pages,
)
from beamlabel.transforms.inputs.parquet_source import open_parquet

NESTED = b"\x1c" * 100_000  # a struct in a struct
ENDLESS = b"\x15" + b"\x80" * 1_000_000  # a number without an end
LISTS = b"\x19" + b"\x19" * 100_000  # a list of lists


def header(*fields):
    """A page header from (number, value) in order; a struct is given by its fields."""
    data, last = b"", 0
    for number, value in fields:
        kind = 12 if isinstance(value, tuple) else 8 if isinstance(value, bytes) else 5
        data += bytes(((number - last) << 4 | kind,))
        if kind == 12:
            data += header(*value)
        else:
            data += varint(len(value)) + value if kind == 8 else varint(value << 1 ^ value >> 63)
        last = number
    return data + b"\0"


def varint(value):
    data = bytearray()
    while value > 127:
        data.append(value & 127 | 128)
        value >>= 7
    return bytes([*data, value])


@pytest.mark.parametrize("data", [NESTED, ENDLESS, LISTS], ids=["structs", "number", "lists"])
def test_a_file_without_an_end_is_damaged(data):
    with pytest.raises(ValueError):
        CompactReader(data).struct()
    with pytest.raises(ValueError):
        walk_pages(io.BytesIO(data), 0, len(data), 10)
    guard = PageGuard()
    guard.watch([Chunk(0, len(data), "uri", "BYTE_ARRAY", "SNAPPY", False)], 4096)
    with pytest.raises(DamagedPageError):
        guard.see(0, data)


def test_a_chunk_that_lies_upon_another_does_not_hide_its_pages():
    """Reads two chunks in turns; one begins within the other."""
    small, large = 100, (1 << 30)
    first = header((1, 0), (2, small), (3, 60), (5, ((1, 1), (2, 0)))) + bytes(60)
    bomb = header((1, 0), (2, large), (3, 1000), (5, ((1, 1), (2, 0))))
    data = first + bomb + bytes(1000)
    chunks = [
        Chunk(start, len(data), name, "BYTE_ARRAY", "SNAPPY", False)
        for start, name in ((0, "uri"), (500, "n"))
    ]
    guard = PageGuard()
    guard.watch(chunks, 4096)
    guard.see(0, data[:50])
    guard.see(500, data[500:600])
    with pytest.raises(LargePageError) as caught:
        guard.see(50, data[50:500])
    assert caught.value.leaf == "uri"


def test_values_of_a_fixed_length_are_read_few_at_a_time():
    """Missing values take as much memory as others but no bytes in the file."""
    seen = []

    def read(rows):
        seen.append(rows)
        return iter([])

    for width, rows in ((0, 4096), (16, 4096), (10_000_000, 6), (1 << 30, 1)):
        chunk = Chunk(0, 10, "n", "FIXED_LEN_BYTE_ARRAY", "SNAPPY", False, True, width)
        assert list(bounded_batches(read, PageGuard(), [chunk], 4096)) == []
        assert seen.pop() == rows


DICTIONARY = header((1, 2), (2, 0), (3, -7), (7, ((1, 0), (2, 0))))


@pytest.mark.parametrize(
    "data",
    [
        DICTIONARY,  # a negative size, so that the next page is the same one
        header((1, 0), (2, 0), (3, -20), (5, ((1, 1), (2, 0)))),
        header((1, 0), (2, 0), (3, 20), (5, ((1, -1), (2, 0)))),
        header((1, 0), (2, 0), (3, 20), (5, 5)),
        header((1, 0), (2, 0), (3, b"20"), (5, ((1, 1),))),
        header((1, b"data"), (2, 0), (3, 20)),
        header((1, 3), (3, 20), (8, ((1, 5),))),
        header((1, 9), (3, 20)),
        header(),
    ],
)
def test_pages_that_lead_nowhere_are_damaged(data):
    assert len(DICTIONARY) > 7
    with pytest.raises(ValueError):
        walk_pages(io.BytesIO(data + bytes(100)), 0, len(data) + 100, 10)
    with pytest.raises(ValueError):
        page_rows(data)


def with_index(data, place, offset, length):
    """The file with a changed position of an offset index: ColumnChunk.offset_index_offset and _length."""
    at = data.rindex(b"\x16" + varint(2 * place[0]) + b"\x15" + varint(2 * place[1]))
    old = 2 + len(varint(2 * place[0])) + len(varint(2 * place[1]))
    new = b"\x16" + varint(offset << 1) + b"\x15" + varint(length << 1)
    changed = data[:at] + new + data[at + old : -8]
    size = int.from_bytes(data[-8:-4], "little") + len(new) - old
    return changed + struct.pack("<I", size) + b"PAR1"


@pytest.mark.parametrize("place", [(1 << 62, 10), (4, (1 << 31) - 1), (1 << 40, 1 << 20)])
def test_an_index_beyond_the_file_is_none(tmp_path, place):
    buffer = io.BytesIO()
    uris = [f"{n}.jpg" for n in range(500)]
    pq.write_table(
        pa.table({"uri": uris}), buffer, write_page_index=True, max_rows_per_page=50, use_dictionary=False,
        store_schema=False,
    )  # fmt: skip
    data = buffer.getvalue()
    raw = io.BytesIO(data)
    indexes = OffsetIndexes(raw)
    assert len(indexes.pages(raw, 0, 0)) == 10
    (chunk,) = indexes._places[0]
    raw = io.BytesIO(with_index(data, chunk, *place))
    lying = OffsetIndexes(raw)
    assert lying._places[0] == [place]
    try:
        assert lying.pages(raw, 0, 0) is None
    except ValueError as error:
        assert "index" in str(error)
    path = tmp_path / "list.parquet"
    path.write_bytes(raw.getvalue())
    with open_parquet(str(path)) as file:
        assert file.read()["uri"].to_pylist() == uris


def test_deep_or_mistyped_indexes_are_damaged():
    body = b"PAR1" + NESTED
    for content in (NESTED, header((1, 5)), b"\x19\x15\x02\0", b"\x19\x1c\x16\x02\0\0"):
        chunk = header((4, 4), (5, len(content)))
        group = b"\x19\x1c" + chunk + b"\0"
        footer = b"\x49\x1c" + group + b"\0"
        raw = io.BytesIO(b"PAR1" + content + footer + struct.pack("<I", len(footer)) + b"PAR1")
        indexes = OffsetIndexes(raw)
        with pytest.raises(ValueError):
            indexes.pages(raw, 0, 0)
    for footer in (header((4, 5)), b"\x49\x15\x02\0", NESTED):
        raw = io.BytesIO(body + footer + struct.pack("<I", len(footer)) + b"PAR1")
        with pytest.raises(ValueError):
            OffsetIndexes(raw)


def packed(numbers, block=128, minis=4):
    """DELTA_BINARY_PACKED by the specification, without regard to speed."""
    data = varint(block) + varint(minis) + varint(len(numbers))
    data += varint(numbers[0] << 1 ^ numbers[0] >> 63) if numbers else b"\0"
    steps = [after - before for before, after in itertools.pairwise(numbers)]
    for begin in range(0, len(steps), block):
        part = steps[begin : begin + block]
        least, size = min(part), block // minis
        parts = [part[at : at + size] for at in range(0, block, size)]
        widths = [max((step - least).bit_length() for step in one) if one else 0 for one in parts]
        data += varint(least << 1 ^ least >> 63) + bytes(widths)
        for one, width in zip(parts, widths, strict=True):
            if one:
                number = sum((step - least) << width * place for place, step in enumerate(one))
                data += number.to_bytes(size * width // 8, "little")
    return data


def test_lengths_are_those_that_were_written():
    source = random.Random(3)
    for count in (0, 1, 2, 32, 33, 128, 129, 130, 1000):
        for top in (1, 2, 300, 1 << 20):
            repeated, own = ([source.randrange(top) for _ in range(count)] for _ in range(2))
            found = delta_lengths(packed(repeated) + packed(own) + b"values", count)
            assert found.total == sum(repeated) + sum(own)
            assert found.longest == max(repeated, default=0) + max(own, default=0)


def test_lengths_that_are_none_are_damaged():
    good = packed([3, 4, 5])
    many = varint(1 << 30) + varint(1) + varint(1 << 29) + b"\2\0\0"
    for data in (
        b"", good, good[:-1], good + packed([1]), packed([-5]) + packed([1]), packed([1, -5]) + packed([1, 2]),
        many + good, varint(128) + varint(0) + b"\3\0", varint(128) + varint(1 << 40) + b"\3\0" + bytes(99),
        ENDLESS, varint(128) + varint(4) + b"\3\0\0" + b"\xff" * 4 + bytes(4000),
    ):  # fmt: skip
        with pytest.raises(ValueError):
            delta_lengths(data, 3)
    # Differences of zero bits may be arbitrarily many at no cost.
    assert delta_lengths(many + many, 1 << 29).total == 1 << 30
