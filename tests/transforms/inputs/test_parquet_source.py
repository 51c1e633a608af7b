import datetime

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from beamlabel.transforms.inputs.parquet_rows import RowReader, row_ranges
from beamlabel.transforms.inputs.parquet_source import (
    ParquetColumns,
    choose_columns,
    open_parquet,
)


def write(path, table, **options):
    pq.write_table(table, path, **options)
    return str(path)


def read_rows(file, columns, *, start, stop, path):
    reader = RowReader(file, columns, path)
    for rows in row_ranges(file.metadata, start, stop):
        yield from reader.rows(rows)


def choose(schema, *, uri=None, image=None, kept=()):
    return choose_columns(schema, uri=uri, image=image, kept=kept, path="x.parquet")


STRING, BINARY = pa.string(), pa.binary()
HUGGING_FACE = pa.struct([("bytes", BINARY), ("path", STRING)])


@pytest.mark.parametrize(
    ("fields", "found"),
    [
        ([("uri", STRING), ("url", STRING)], "uri"),
        ([("id", pa.int64()), ("url", pa.large_string())], "url"),
        ([("id", pa.int64()), ("photo", STRING)], "photo"),
        ([("photo", pa.dictionary(pa.int32(), STRING))], "photo"),
    ],
)
def test_the_uri_column_is_found(fields, found):
    assert choose(pa.schema(fields)).uri == found


@pytest.mark.parametrize(
    ("fields", "arguments", "message"),
    [
        ([("a", STRING), ("b", STRING)], {}, r"--uri_column: name the column.*a \(string\), b \(string\)"),
        ([("a", STRING)], {"uri": "b"}, "--uri_column 'b': no such column in x.parquet; columns: a"),
        (
            [("a", pa.int64())],
            {"uri": "a"},
            "--uri_column 'a': the column has the type int64 in x.parquet, not string",
        ),
        ([("a", STRING)], {"image": "a"}, "--image_column 'a': the column has the type string in x.parquet"),
        ([("a", STRING)], {"kept": ["k"]}, "--keep_columns 'k': no such column"),
        ([("a", pa.struct([("path", STRING)]))], {"image": "a"}, "--image_column 'a'"),
    ],
)
def test_columns_that_do_not_fit_are_refused_by_name(fields, arguments, message):
    with pytest.raises(ValueError, match=message):
        choose(pa.schema(fields), **arguments)


def test_any_range_of_rows_is_read_across_many_row_groups(tmp_path):
    uris = [f"{i}.jpg" for i in range(103)]
    path = write(tmp_path / "p.parquet", pa.table({"uri": uris}), row_group_size=10)
    with open_parquet(path) as file:
        for start, stop in [(0, 103), (0, 1), (9, 11), (10, 20), (55, 103), (102, 103), (40, 40)]:
            rows = list(read_rows(file, ParquetColumns(uri="uri"), start=start, stop=stop, path=path))
            assert [row.place for row in rows] == [(row, None) for row in range(start, stop)]
            assert [row.uri for row in rows] == uris[start:stop]


def test_a_range_reads_only_its_own_row_groups(tmp_path):
    """The bytes of the other groups are overwritten, so reading them would fail."""
    images = [np.random.default_rng(i).bytes(50_000) for i in range(30)]
    path = tmp_path / "p.parquet"
    pq.write_table(pa.table({"image": images}), path, row_group_size=10, compression="none")
    metadata = pq.read_metadata(path)
    spoiled = bytearray(path.read_bytes())
    for group in (0, 2):
        column = metadata.row_group(group).column(0)
        offset = column.dictionary_page_offset or column.data_page_offset
        spoiled[offset : offset + 64] = b"\xff" * 64
    path.write_bytes(spoiled)
    with open_parquet(str(path)) as file:
        rows = list(read_rows(file, ParquetColumns(image="image"), start=10, stop=20, path=str(path)))
        assert [row.data for row in rows] == images[10:20]
        with pytest.raises((OSError, ValueError)):
            list(read_rows(file, ParquetColumns(image="image"), start=0, stop=10, path=str(path)))


def test_inline_images_are_plain_bytes_or_hugging_faces_struct(tmp_path):
    table = pa.table(
        {
            "plain": pa.array([b"one", None, b""], BINARY),
            "image": pa.array(
                [
                    {"bytes": b"one", "path": "a/1.jpg"},
                    {"bytes": None, "path": "b.jpg"},
                    {"bytes": b"3", "path": None},
                ],
                HUGGING_FACE,
            ),
        }
    )
    path = write(tmp_path / "p.parquet", table)
    with open_parquet(path) as file:
        struct = list(read_rows(file, ParquetColumns(image="image"), start=0, stop=3, path=path))
        plain = list(read_rows(file, ParquetColumns(image="plain"), start=0, stop=3, path=path))
    assert [(row.uri, row.data) for row in struct] == [("a/1.jpg", b"one"), ("b.jpg", None), (None, b"3")]
    assert [(row.uri, row.data) for row in plain] == [(None, b"one"), (None, None), (None, None)]


def test_kept_columns_arrive_with_nanoseconds_as_microseconds_and_dictionaries_decoded(tmp_path):
    time = np.array(["2026-01-02T03:04:05.123456000"], "datetime64[ns]")
    table = pa.table(
        {
            "uri": ["a.jpg"],
            "taken": pa.array(time, pa.timestamp("ns", "UTC")),
            "album": pa.array(["x"]).dictionary_encode(),
            "tags": pa.array([["p", "q"]], pa.list_(STRING)),
            "when": pa.array([datetime.date(2026, 1, 2)], pa.date32()),
        }
    )
    path = write(tmp_path / "p.parquet", table)
    with open_parquet(path) as file:
        columns = choose_columns(
            file.schema_arrow, uri="uri", image=None, kept=["taken", "album", "tags", "when"], path=path
        )
        (row,) = read_rows(file, columns, start=0, stop=1, path=path)
    taken = datetime.datetime(2026, 1, 2, 3, 4, 5, 123456, tzinfo=datetime.timezone.utc)
    assert [value.to_pylist() for value in row.kept] == [
        [taken],
        ["x"],
        [["p", "q"]],
        [datetime.date(2026, 1, 2)],
    ]


@pytest.mark.parametrize("arguments", [{}, {"uri": "uri"}, {"image": "uri"}, {"kept": ["uri"]}], ids=str)
def test_two_columns_of_the_name_that_is_read_are_refused(arguments):
    schema = pa.schema([("uri", STRING), ("uri", STRING)])
    with pytest.raises(ValueError, match=r"x\.parquet has 2 columns named 'uri'"):
        choose(schema, **arguments)


def test_two_columns_of_a_name_that_nobody_reads_do_no_harm(tmp_path):
    names = ["uri", "n", "n", "m"]
    table = pa.Table.from_arrays([pa.array([name]) for name in names], names=names)
    path = write(tmp_path / "p.parquet", table)
    with open_parquet(path) as file:
        columns = choose_columns(file.schema_arrow, uri="uri", image=None, kept=["m"], path=path)
        (row,) = read_rows(file, columns, start=0, stop=1, path=path)
    assert (row.uri, row.kept[0].to_pylist()) == ("uri", ["m"])


@pytest.mark.parametrize(
    "kind",
    [
        pa.struct([("a", STRING), ("a", STRING)]),
        pa.list_(pa.struct([("b", pa.struct([("a", STRING), ("a", pa.int8())]))])),
    ],
    ids=str,
)
def test_two_fields_of_one_name_are_refused(kind):
    schema = pa.schema([("uri", STRING), ("odd", kind)])
    with pytest.raises(ValueError, match=r"'odd' of x\.parquet has two fields named 'a'"):
        choose(schema, kept=["odd"])
    image = pa.struct([("bytes", BINARY), ("bytes", BINARY)])
    with pytest.raises(ValueError, match=r"'odd' of x\.parquet has two fields named 'bytes'"):
        choose(pa.schema([("odd", image)]), image="odd")


def test_files_other_than_parquet_are_refused_with_their_name(tmp_path):
    (tmp_path / "bad.parquet").write_bytes(b"PAR1 nothing else")
    with (
        pytest.raises(ValueError, match=r"bad.parquet: not a readable Parquet file"),
        open_parquet(str(tmp_path / "bad.parquet")),
    ):
        pass
