"""Reads of a Parquet input in a bucket: the columns' bytes once, for all row groups and pages."""

import hashlib
import io
import math

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from beamlabel.transforms.inputs.packed_refs import RefSpiller
from beamlabel.transforms.inputs.parquet import footers
from beamlabel.transforms.inputs.parquet.page_index import OffsetIndexes
from beamlabel.transforms.inputs.parquet_source import choose_columns, open_parquet
from beamlabel.transforms.inputs.selection import Selection
from beamlabel.transforms.inputs.sources.source import SourceOptions
from beamlabel.transforms.records import Failure, InputFile, Reason
from beamlabel.transforms.units.open_unit import open_unit, skip_unit
from beamlabel.transforms.units.plan_units import plan_files

ROWS = 12_000
URIS = [f"gs://photos/{hashlib.sha256(str(row).encode()).hexdigest()}.jpg" for row in range(ROWS)]
LABELS = [f"label {row % 7}" for row in range(ROWS)]
NUMBERS = np.random.default_rng(1).integers(0, 1 << 60, ROWS)
MANY = {"max_rows_per_page": 60, "write_page_index": True, "use_dictionary": ["label"]}
LAYOUTS = {
    "one group": {},
    "one group, large pages, index": {"write_page_index": True, "max_rows_per_page": 6_000},
    "one group, small pages, index": MANY,
    "one group, version 2": {"data_page_version": "2.0", "compression": "zstd"},
    "groups": {"row_group_size": 2_500},
    "groups, index": {"row_group_size": 5_000, **MANY},
}


@pytest.fixture(autouse=True)
def _nothing_is_known():
    footers.forget()


def put(gcs, columns, **layout):
    buffer = io.BytesIO()
    pq.write_table(pa.table(columns), buffer, row_group_size=layout.pop("row_group_size", ROWS), **layout)
    return gcs.put("in/list.parquet", buffer.getvalue())


def requested(server, path):
    """The number of requested bytes of a file."""
    name, total = path.rpartition("/")[2], 0
    for request in server.requests:
        headers = {name.lower(): value for name, value in request.headers.items()}
        if "range" in headers and request.path.endswith(name):
            start, stop = headers["range"].removeprefix("bytes=").split("-")
            total += int(stop) - int(start) + 1
    return total


def column_bytes(path, names):
    with open_parquet(path) as file:
        metadata = file.metadata
        return sum(
            metadata.row_group(group).column(place).total_compressed_size
            for group in range(metadata.num_row_groups)
            for place in range(metadata.num_columns)
            if metadata.row_group(group).column(place).path_in_schema in names
        )


def opened(gcs, path, *, kept=(), **changes):
    """The staged units of a file and their references."""
    with open_parquet(path) as file:
        columns = choose_columns(file.schema_arrow, uri="uri", image=None, kept=kept, path=path)
    options = SourceOptions("/", columns, **changes)
    spiller = RefSpiller(gcs.uri("staging"))
    units = [spiller.spill(unit) for unit in plan_files([(0, InputFile(path, "parquet"))], options)]
    selection = Selection(options.selection)
    refs = [ref for unit in units for ref in list(open_unit(unit, options, selection))[:-1]]
    return units, refs, options


@pytest.mark.parametrize("layout", LAYOUTS)
def test_each_byte_is_read_about_once(gcs, gcs_server, layout):
    path = put(gcs, {"uri": URIS, "label": LABELS, "n": NUMBERS}, **LAYOUTS[layout])
    there = column_bytes(path, ["uri", "label", "n"])
    footers.forget()
    gcs_server.forget()
    units, refs, _ = opened(gcs, path, kept=["label", "n"], min_unit_rows=1_000)
    assert requested(gcs_server, path) <= 1.2 * there + (1 << 16)  # pyarrow requests 64 KiB for the footer
    assert len(units) > 4
    assert [unit.start for unit in units] == [0, *(unit.stop for unit in units[:-1])]
    assert units[-1].stop == ROWS
    assert {unit.file_rows for unit in units} == {ROWS}
    assert [ref.uri for ref in refs] == URIS
    assert [ref.ref_id for ref in refs] == [f"{path}#{row}" for row in range(ROWS)]
    assert [ref.passthrough[0][0].as_py() for ref in refs] == LABELS
    assert [ref.passthrough[1][0].as_py() for ref in refs] == NUMBERS.tolist()


@pytest.mark.parametrize("layout", ["one group, small pages, index", "groups"])
def test_nothing_is_staged_that_units_can_read_themselves(gcs, layout):
    path = put(gcs, {"uri": URIS}, **LAYOUTS[layout])
    units, refs, _ = opened(gcs, path, shard_rows=2_500)
    assert all(unit.refs_path is None and unit.packed_refs is None for unit in units)
    assert [ref.uri for ref in refs] == URIS


def test_three_of_many_columns_are_read_once_and_no_others(gcs, gcs_server):
    rng = np.random.default_rng(2)
    rows = 3_000
    wide = {f"w{n}": [rng.bytes(700) for _ in range(rows)] for n in range(3)}
    columns = {
        "w0": wide["w0"],
        "uri": URIS[:rows],
        "w1": wide["w1"],
        "caption": wide["w2"],
        "n": NUMBERS[:rows],
    }
    path = put(gcs, columns, row_group_size=rows)
    there = column_bytes(path, ["uri", "caption", "n"])
    footers.forget()
    gcs_server.forget()
    with open_parquet(path) as file:
        found = list(file.iter_batches(64, columns=["uri", "caption", "n"]))
    assert sum(batch.num_rows for batch in found) == rows
    assert there < requested(gcs_server, path) <= 1.2 * there
    # A window for each column, and the size and the footer of the file.
    assert gcs_server.count("GET") <= 2 + 3


def test_small_columns_side_by_side_are_one_request_a_row_group(gcs, gcs_server):
    path = put(gcs, {"uri": URIS[:900], "label": LABELS[:900], "n": NUMBERS[:900]}, row_group_size=300)
    with open_parquet(path) as file:
        gcs_server.forget()
        batches = list(file.iter_batches(64, columns=["uri", "label", "n"]))
    assert pa.Table.from_batches(batches)["uri"].to_pylist() == URIS[:900]
    assert gcs_server.count("GET") == 1, "all of it is less than a window"


def test_a_footer_is_read_once_a_version(gcs, gcs_server):
    path = put(gcs, {"uri": URIS[:100]})
    for _ in range(2):
        with open_parquet(path) as file:
            assert file.metadata.num_rows == 100
    assert requested(gcs_server, path) <= 1 << 16
    put(gcs, {"uri": URIS[:50]})
    with open_parquet(path) as file:
        assert file.read().column("uri").to_pylist() == URIS[:50]


@pytest.mark.parametrize("lists", [False, True], ids=["strings", "lists"])
@pytest.mark.parametrize("limit", [1, 777, None])
def test_a_sample_and_a_limit_choose_the_same_references_as_ever(gcs, gcs_server, limit, lists):
    values = (
        [[uri, uri + "2"] if row % 3 else [] for row, uri in enumerate(URIS[:3_000])]
        if lists
        else URIS[:3_000]
    )
    path = put(gcs, {"uri": values, "n": NUMBERS[:3_000]})
    footers.forget()
    gcs_server.forget()
    changes = {"limit": limit} if limit else {}
    units, refs, options = opened(gcs, path, kept=["n"], sample=0.3, **changes)
    expected = []
    for row, value in enumerate(values):
        for place, uri in enumerate(value) if lists else [(None, value)]:
            if options.in_sample(uri):
                expected.append((f"{path}#{row}" + ("" if place is None else f"#{place}"), uri, NUMBERS[row]))
    expected = expected[:limit]
    assert [(ref.ref_id, ref.uri, ref.passthrough[0][0].as_py()) for ref in refs] == expected
    orders = [ref.row for ref in refs]
    assert orders == sorted(set(orders))
    selection = Selection(options.selection)
    assert sum(skip_unit(unit, options, selection).input for unit in units) == len(expected)
    assert requested(gcs_server, path) <= 1.2 * column_bytes(path, ["uri", "uri.list.element", "n"]) + (
        1 << 16
    )


@pytest.mark.parametrize("where", ["first row", "size"])
def test_a_page_index_that_lies_is_an_error(gcs, where):
    """No row is taken for another after a shift that the index alone does not reveal."""
    buffer = io.BytesIO()
    table = pa.table({"uri": URIS[:3_000], "n": NUMBERS[:3_000]})
    pq.write_table(
        table, buffer, write_page_index=True, max_rows_per_page=100, use_dictionary=False, compression="none"
    )
    data = bytearray(buffer.getvalue())
    path = gcs.put("in/list.parquet", bytes(data))
    with open_parquet(path) as file:
        chunk = file.metadata.row_group(0).column(0)
        begin = chunk.data_page_offset
    raw = io.BytesIO(bytes(data))
    pages = OffsetIndexes(raw).pages(raw, 0, 0)
    assert pages[0].offset == begin
    if where == "first row":
        old, new = varint(2 * pages[20].first_row), varint(2 * (pages[20].first_row - 10))
    else:
        old, new = varint(2 * pages[20].size), varint(2 * (pages[20].size - 8))
    place = data.index(b"\x16" + varint(2 * pages[20].offset), len(data) - 8_000)
    at = data.index(old, place + 1)
    assert at - place < 12 and len(old) == len(new)
    data[at : at + len(old)] = new
    path = gcs.put("in/list.parquet", bytes(data))
    _, refs, _ = opened(gcs, path, kept=["n"], shard_rows=500)
    failed = [ref for ref in refs if isinstance(ref, Failure)]
    assert failed and {ref.reason for ref in failed} == {Reason.CORRUPT}
    assert all("page index" in ref.detail for ref in failed)
    assert [ref.row for ref in refs] == list(range(3_000))
    read = [ref for ref in refs if not isinstance(ref, Failure)]
    assert [(ref.uri, ref.passthrough[0][0].as_py()) for ref in read] == [
        (URIS[ref.row], NUMBERS[ref.row]) for ref in read
    ]


def varint(value):
    data = bytearray()
    while value > 127:
        data.append(value & 127 | 128)
        value >>= 7
    return bytes([*data, value])


def test_units_stay_the_same_for_one_who_plans_again(gcs):
    path = put(gcs, {"uri": URIS, "n": NUMBERS})
    first, _, options = opened(gcs, path, kept=["n"], min_unit_rows=1_000)
    again = plan_files([(0, InputFile(path, "parquet"))], options)
    assert [unit.unit_id for unit in again] == [unit.unit_id for unit in first]
    assert any(unit.refs_path for unit in first)


def test_unit_sizes_are_bounded_by_their_bytes(gcs):
    captions = [f"{row} " + "x" * 3_000 for row in range(12_000)]
    path = put(gcs, {"uri": URIS[:12_000], "caption": captions}, use_dictionary=False)
    units, refs, _ = opened(gcs, path, kept=["caption"], min_unit_rows=10_000)
    assert max(unit.stop - unit.start for unit in units) <= math.ceil((8 << 20) / 3_000)
    assert [ref.passthrough[0][0].as_py() for ref in refs] == captions
