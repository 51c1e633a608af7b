"""Parquet inputs → references: lists, URIs of any byte type, and samples and limits that read few images."""

import dataclasses
import hashlib
import io
from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from beamlabel.transforms import storage
from beamlabel.transforms.inputs.key_index import KeyIndexWriter, key
from beamlabel.transforms.inputs.parquet_source import ParquetColumns, choose_columns, open_parquet
from beamlabel.transforms.inputs.selection import Selection, SelectionOptions, StagedIndex
from beamlabel.transforms.inputs.sources.registry import source_of
from beamlabel.transforms.inputs.sources.source import SourceOptions
from beamlabel.transforms.records import Failure, InputFile, Reason
from beamlabel.transforms.storage.uris import sample_hash
from beamlabel.transforms.units.open_unit import open_unit, skip_unit
from beamlabel.transforms.units.plan_units import plan_files

STRING, BINARY = pa.string(), pa.binary()
IMAGE = pa.struct([("bytes", BINARY), ("path", STRING)])


def opened(paths, *, uri=None, image=None, kept=(), only=None, **changes):
    """The references of files and the number of omitted rows; checks the units' counts."""
    paths = [paths] if isinstance(paths, str) else paths
    with open_parquet(paths[0]) as file:
        columns = choose_columns(file.schema_arrow, uri=uri, image=image, kept=kept, path=paths[0])
    options = SourceOptions(**{"base_dir": "/base", "columns": columns, **changes})
    refs, left_out = [], Counter()
    units = list(plan_files([*enumerate(InputFile(path, "parquet") for path in paths)], options))
    selection = Selection(options.selection)
    for unit in units:
        *found, end = open_unit(unit, options, selection)
        assert (end.sent, end.skipped) == (len(found), 0)
        orders = [ref.row for ref in found]
        assert orders == sorted(set(orders))
        assert {ref.unit_id for ref in found} <= {unit.unit_id}
        assert skip_unit(unit, options, selection).input == len(found)
        left_out.update(dict(end.unit.left_out))
        refs += found
    assert len({ref.ref_id for ref in refs}) == len(refs)
    return refs, left_out


def write(path, column, kind, **options):
    pq.write_table(pa.table({"x": pa.array(column, kind), "n": range(len(column))}), path, **options)
    return str(path)


BINARIES = [
    BINARY,
    pa.large_binary(),
    pa.binary_view(),
    pa.dictionary(pa.int32(), BINARY),
    pa.list_(BINARY),
    pa.list_(pa.large_binary()),
]


@pytest.mark.parametrize("kind", BINARIES, ids=str)
def test_uris_of_bytes_are_utf_8_and_others_fail_alone(tmp_path, kind):
    values = ["ünï 漢.jpg".encode(), b"caf\xe9.jpg", None, b"", b"b.jpg"]
    values = [[value] for value in values] if "list" in str(kind) else values
    path = write(tmp_path / "p.parquet", values, kind)
    (first, bad, null, empty, last), _ = opened(path, uri="x")
    assert (first.uri, first.location, last.uri) == ("ünï 漢.jpg", "/base/ünï 漢.jpg", "b.jpg")
    assert isinstance(bad, Failure)
    assert (bad.uri, bad.reason) == (r"caf\xe9.jpg", Reason.INVALID_URI)
    assert [failure.reason for failure in (null, empty)] == [Reason.NULL_URI] * 2


def test_bytes_of_a_fixed_size_are_uris(tmp_path):
    refs, _ = opened(write(tmp_path / "p.parquet", [b"a.jpg", b"b.jpg"], pa.binary(5)), uri="x")
    assert [ref.uri for ref in refs] == ["a.jpg", "b.jpg"]


LISTS = [pa.list_, pa.large_list, pa.list_view]


@pytest.mark.parametrize("outer", LISTS)
def test_each_uri_of_a_list_is_a_reference(tmp_path, outer):
    values = [["a.jpg", "b.jpg"], [], None, ["a.jpg", None, "c.jpg"]]
    path = write(tmp_path / "p.parquet", values, outer(STRING))
    refs, left_out = opened(path, uri="x", kept=["n"])
    assert [(ref.uri, ref.ref_id) for ref in refs] == [
        ("a.jpg", f"{path}#0#0"),
        ("b.jpg", f"{path}#0#1"),
        ("a.jpg", f"{path}#3#0"),
        (None, f"{path}#3#1"),
        ("c.jpg", f"{path}#3#2"),
    ]
    assert left_out == {"empty_list": 2}
    assert refs[3].reason is Reason.NULL_URI
    kept = [ref.passthrough[0].to_pylist() for ref in refs if not isinstance(ref, Failure)]
    assert kept == [[0], [0], [3], [3]]


@pytest.mark.parametrize("kind", [IMAGE, BINARY], ids=["structs", "bytes"])
def test_each_image_of_a_list_is_a_reference(tmp_path, kind):
    def image(data, path=None):
        return {"bytes": data, "path": path} if kind == IMAGE else data

    values = [[image(b"1"), image(b"2")], [], [image(b"3", "3.jpg"), image(None, "4.jpg"), image(None)]]
    path = write(tmp_path / "p.parquet", values, pa.list_(kind))
    refs, left_out = opened(path, image="x")
    told = kind == IMAGE
    assert [ref.ref_id for ref in refs] == [f"{path}#{at}" for at in ("0#0", "0#1", "2#0", "2#1", "2#2")]
    assert [ref.uri for ref in refs[:3]] == [f"{path}#0#0", f"{path}#0#1", "3.jpg" if told else f"{path}#2#0"]
    assert [ref.data for ref in refs[:3]] == [b"1", b"2", b"3"]
    if told:
        assert (refs[3].location, refs[3].data) == ("/base/4.jpg", None)
    assert refs[4].reason is Reason.NULL_URI
    assert left_out == {"empty_list": 1}


def test_lists_of_a_fixed_size(tmp_path):
    path = write(tmp_path / "p.parquet", [["a", "b"], ["c", "d"]], pa.list_(STRING, 2))
    assert [ref.uri for ref in opened(path, uri="x")[0]] == ["a", "b", "c", "d"]


@pytest.mark.parametrize("limit", [1, 2, 5, 6, 7, 40, 1000])
@pytest.mark.parametrize("sample", [1.0, 0.4])
@pytest.mark.parametrize("kind", [IMAGE, BINARY], ids=["structs", "bytes"])
def test_limits_and_samples_count_the_values_of_lists(tmp_path, kind, sample, limit):
    def image(row, element):
        data = f"{row} {element}".encode()
        return {"bytes": data, "path": f"{row}/{element}.jpg"} if kind == IMAGE else data

    lengths = [row * 7 % 5 for row in range(60)]
    values = [[image(row, element) for element in range(length)] for row, length in enumerate(lengths)]
    paths = [write(tmp_path / f"{n}.parquet", values[n::2], pa.list_(kind), row_group_size=7) for n in (0, 1)]
    everything, _ = opened(paths, image="x")
    for shard_rows in (None, 4):
        refs, _ = opened(paths, image="x", sample=sample, limit=limit, shard_rows=shard_rows)
        expected = [ref for ref in everything if sample >= 1 or sample_hash(ref.uri) < sample][:limit]
        assert [(ref.ref_id, ref.data) for ref in refs] == [(ref.ref_id, ref.data) for ref in expected]


# The bytes read.

ROWS, SIZE = 300, 8_000


def images(directory, kind, **options):
    """A file of incompressible images."""
    data = [np.random.default_rng(row).bytes(SIZE) for row in range(ROWS)]
    values = [{"bytes": one, "path": f"{row}.jpg"} for row, one in enumerate(data)] if kind == IMAGE else data
    values = [values[row : row + 2] for row in range(0, ROWS, 2)] if pa.types.is_list(kind) else values
    return write(
        directory / "p.parquet", values, kind, use_dictionary=False, write_statistics=False, **options
    )


@pytest.fixture
def taken(monkeypatch):
    """The number of bytes read from inputs, in a list of one number."""
    count = [0]
    open_input = storage.open_input

    def counting(path):
        file = open_input(path)
        read = file.read

        class Counting:
            closed = False

            def __getattr__(self, name):
                return getattr(file, name)

            def __enter__(self):
                return self

            def __exit__(self, *_):
                file.close()

            def read(self, size=-1):
                data = read(size)
                count[0] += len(data)
                return data

        return Counting()

    monkeypatch.setattr(storage, "open_input", counting)
    return count


@pytest.mark.parametrize("kind", [IMAGE, BINARY], ids=["structs", "bytes"])
@pytest.mark.parametrize(
    "pages",
    [{"row_group_size": 5}, {"max_rows_per_page": 5, "write_page_index": True}],
    ids=["groups", "pages"],
)
@pytest.mark.parametrize("changes", [{"sample": 0.05}, {"sample": 0.1, "limit": 3}], ids=str)
def test_a_sample_reads_the_images_that_it_has(tmp_path, taken, kind, pages, changes, monkeypatch):
    monkeypatch.setattr("beamlabel.transforms.inputs.parquet_source._READ_BUFFER_BYTES", 1 << 12)
    path = images(tmp_path, kind, **pages)
    everything, _ = opened(path, image="x")
    chosen = [ref for ref in everything if sample_hash(ref.uri) < changes["sample"]][: changes.get("limit")]
    assert chosen
    taken[0] = 0
    refs, _ = opened(path, image="x", **changes)
    assert [(ref.ref_id, ref.data) for ref in refs] == [(ref.ref_id, ref.data) for ref in chosen]
    # An image costs at most its page or row group. Counting, as in `opened`, reads no image.
    assert len(chosen) * SIZE < taken[0] < len(chosen) * 6 * SIZE + _footers(path)
    if kind == IMAGE:  # the ids of the others contain the file name, so that each file gets another sample
        assert taken[0] < ROWS * SIZE / 2


def _footers(path):
    """Bytes of metadata and keys in all passes; pyarrow reads at least the last 64 KiB of a file."""
    return 6 * (1 << 16) + 12 * (Path(path).stat().st_size - ROWS * SIZE)


def test_only_failed_references_are_read(tmp_path, taken):
    path = images(tmp_path, IMAGE, row_group_size=5)
    with KeyIndexWriter(tmp_path) as writer:
        writer.add([key(f"{path}#{row}") for row in (3, 120)])
        writer.finish(tmp_path / "only")
    index = StagedIndex(str(tmp_path / "only"), hashlib.sha256((tmp_path / "only").read_bytes()).hexdigest())
    options = SourceOptions("/", selection=SelectionOptions(only=index))
    with open_parquet(path) as file:
        columns = choose_columns(file.schema_arrow, uri=None, image="x", kept=(), path=path)
    options = dataclasses.replace(options, columns=columns)
    taken[0] = 0
    selection = Selection(options.selection)
    units = list(plan_files([(0, InputFile(path, "parquet"))], options))
    refs = [ref for unit in units for ref in list(open_unit(unit, options, selection))[:-1]]
    assert [ref.ref_id for ref in refs] == [f"{path}#3", f"{path}#120"]
    assert taken[0] < ROWS * SIZE / 2


@pytest.mark.parametrize(
    "pages",
    [{"row_group_size": 1}, {"max_rows_per_page": 1, "write_page_index": True}, {"max_rows_per_page": 1}],
    ids=["groups", "index", "headers"],
)
def test_a_sample_on_gs_requests_little_more_than_its_images(gcs, gcs_server, pages):
    size, rows = 150_000, 60
    values = [{"bytes": np.random.default_rng(row).bytes(size), "path": f"ü{row}.jpg"} for row in range(rows)]
    buffer = io.BytesIO()
    table = pa.table({"image": pa.array(values, IMAGE)})
    pq.write_table(table, buffer, use_dictionary=False, write_statistics=False, **pages)
    path = gcs.put("in/photos.parquet", buffer.getvalue())
    chosen = [value for value in values if sample_hash(value["path"]) < 0.05]
    assert 0 < len(chosen) < 6
    options = SourceOptions("/", ParquetColumns(image="image"), sample=0.05)
    (unit,) = plan_files([(0, InputFile(path, "parquet"))], options)
    before = len(gcs_server.requests)
    refs = list(open_unit(unit, options, Selection(options.selection)))[:-1]
    assert [(ref.uri, ref.data) for ref in refs] == [(value["path"], value["bytes"]) for value in chosen]
    requested = 0
    for request in gcs_server.requests[before:]:
        headers = {name.lower(): value for name, value in request.headers.items()}
        if "range" in headers:
            start, stop = headers["range"].removeprefix("bytes=").split("-")
            requested += int(stop) - int(start) + 1
    footer = 2 * (1 << 16) + 2 * (len(buffer.getvalue()) - rows * size)
    assert len(chosen) * size < requested < len(chosen) * size + footer < rows * size / 5


def test_units_of_lists_hold_as_many_references_as_others_and_the_estimate_is_theirs(tmp_path):
    path = write(tmp_path / "p.parquet", [["a.jpg"] * 10] * 100, pa.list_(STRING))
    with open_parquet(path) as file:
        columns = choose_columns(file.schema_arrow, uri="x", image=None, kept=(), path=path)
    options = SourceOptions("/", columns, shard_rows=50)
    units = list(plan_files([(0, InputFile(path, "parquet"))], options))
    assert [(unit.start, unit.stop) for unit in units] == [(row, row + 5) for row in range(0, 100, 5)]
    assert source_of("parquet").estimate(InputFile(path, "parquet"), options) == 1000


@pytest.mark.parametrize("kind", [pa.list_(IMAGE), pa.list_(STRING), IMAGE], ids=str)
def test_a_file_without_rows(tmp_path, kind):
    column = {"uri": "x"} if kind == pa.list_(STRING) else {"image": "x"}
    for changes in ({}, {"sample": 0.5}, {"limit": 3}):
        assert opened(write(tmp_path / "p.parquet", [], kind), **column, **changes) == ([], {})
