"""A file that looks like a table is never read as a list; a list stays one."""

from __future__ import annotations

import gzip

import pyarrow as pa
import pytest

from beamlabel.pipeline.errors import UsageError
from beamlabel.transforms.inputs.tables.table_kinds import Unclear, table_kind
from support.tables import checked, read

LISTS = [
    "a.jpg\nb.jpg\n",
    "photos/Smith, John.jpg\nphotos/Doe, Jane.jpg\n",
    "photos/Smith, John.jpg\nb.jpg\nc.jpg\n",
    "a;b.jpg\nc;d.jpg\n",
    "a|b.png\n",
    "http://x.org/i?size=1,2\nhttp://x.org/i?size=3,4\n",
    "http://x.org/w_200,h_300/a.jpg\nhttp://x.org/w_100,h_300/b.jpg\n",
    "http://x.org/a.jpg?r=1,2\nhttp://x.org/b.jpg?r=1,2\n",
    "gs://b/a.jpg;v=1\nb.jpg\n",
    "# uri,label\na.jpg\n",
    "# made by hand, 2024\ngs://bucket/a, b.jpg\n",
    "{a}.jpg\n[b].jpg\n",
    "[1].jpg\n",
    "url/a.jpg\n",
    "uri\n",
    "path/to/image\nuri/b\n",
    'say "cheese".jpg\n',
    "a.jpg",
    "",
    "\n\n",
]


@pytest.mark.parametrize("text", LISTS)
@pytest.mark.parametrize("name", ["x.txt", "x", "x.lst"])
def test_a_list_is_a_list(tmp_path, text, name):
    (tmp_path / name).write_text(text)
    assert table_kind(str(tmp_path / name)) == "text"
    (tmp_path / "x.gz").write_bytes(gzip.compress(text.encode()))
    assert table_kind(str(tmp_path / "x.gz")) == "text"


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("uri,label\na.jpg,cat\n", "csv"),
        ("id;URL;name\n1;http://x/a.jpg;x\n2;http://x/b,c.jpg;y\n", "csv"),
        ("path\tlabel\na b.jpg\tcat\n", "tsv"),
        ('"uri","text"\n"a.jpg","two\nlines, one record"\n', "csv"),
        ("file_name|text\na.jpg|x\n", "csv"),
        ("uri,label\n", "csv"),
        ('{"uri": "a.jpg"}\n{"uri": "b.jpg"}\n', "jsonl"),
        ('\n{"uri": "a.jpg"}', "jsonl"),
    ],
)
@pytest.mark.parametrize("name", ["x.txt", "x"])
def test_a_table_without_its_name_is_read_as_one(tmp_path, text, kind, name):
    for encoded in (text.encode(), gzip.compress(text.encode()), text.encode("utf-16"),
                    pa.compress(text.encode(), codec="zstd", asbytes=True)):  # fmt: skip
        (tmp_path / name).write_bytes(encoded)
        assert table_kind(str(tmp_path / name)) == kind


@pytest.mark.parametrize(
    "text",
    [
        "a.jpg,cat\nb.jpg,dog\n",
        "a.jpg\tcat\nb.jpg\tdog\n",
        "cat,http://x.org/a.jpg\ndog,http://x.org/b.jpg\n",
        "http://x.org/1,cat\nhttp://x.org/2,dog\n",
        "0;a.jpg;cat\n1;b.jpg;dog\n",
        '"a.jpg","a, b"\n"b.jpg","c"\n',
        "uri\na.jpg\n",
        "uri,label\na.jpg\nb.jpg\nc.jpg\n",
        '[\n {"uri": "a.jpg"}\n]\n',
        '[{"uri": "a.jpg"},\n{"uri": "b.jpg"}]\n',
        '{\n "uri": "a.jpg"\n}\n',
        '{"uri": "a.jpg"}\nb.jpg\n',
    ],
)
def test_an_ambiguous_name_is_refused_with_both_meanings(tmp_path, text):
    path = tmp_path / "x.txt"
    path.write_text(text)
    assert isinstance(table_kind(str(path)), Unclear)
    with pytest.raises(UsageError, match="--input_format text"):
        checked("--input", path)
    lines = [line for line in text.splitlines() if line.strip()]
    assert [row[1] for row in read(path, "--input_format", "text")] == lines


@pytest.mark.parametrize(
    ("name", "kind"),
    [("x.csv", "csv"), ("X.CSV.GZ", "csv"), ("x.tsv", "tsv"), ("x.tab.zst", "tsv"), ("a.b.csv", "csv")],
)
def test_the_name_counts(tmp_path, name, kind):
    (tmp_path / name).write_text("a.jpg\nb.jpg\n")
    assert table_kind(str(tmp_path / name)) == kind
    assert read(tmp_path / name) == [(0, "a.jpg"), (1, "b.jpg")]


@pytest.mark.parametrize("name", ["x.json", "x.jsonl", "x.ndjson.gz"])
def test_json_is_only_read_if_it_is_json_lines(tmp_path, name):
    path = tmp_path / name
    path.write_text('{"uri": "a.jpg"}\n{"uri": "b.jpg"}\n')
    assert read(path) == [(0, "a.jpg"), (1, "b.jpg")]
    for text in ('[{"uri": "a.jpg"}]\n', '{\n"uri": "a.jpg"}\n', "a.jpg\n"):
        path.write_text(text)
        for arguments in ((), ("--input_format", "jsonl")):
            with pytest.raises(UsageError, match="JSON"):
                checked("--input", path, *arguments)


@pytest.mark.parametrize(
    ("text", "arguments", "rows"),
    [
        ("a.jpg,cat\nb.jpg,dog\n", ("--uri_column", "0"), [(0, "a.jpg"), (1, "b.jpg")]),
        ("1,a.jpg\n", ("--uri_column", "1", "--keep_columns", "0=id"), [(0, "a.jpg", 1)]),
        ("0,1\na.jpg,cat\n", ("--uri_column", "0", "--keep_columns", "1"), [(0, "a.jpg", "cat")]),
        ("image,label\na,1\n", ("--uri_column", "image"), [(0, "a")]),
        ("photo\na.jpg\n", (), [(0, "a.jpg")]),
        ("URL,Label\na.jpg,1\n", ("--keep_columns", "Label"), [(0, "a.jpg", 1)]),
        ("path,file_name\na,b\n", (), [(0, "a")]),
        ("uri,a,a\nx,1,2\n", (), [(0, "x")]),
        ("uri,,\nx,1,2\n", (), [(0, "x")]),
        ("sep=;\nuri;x\na,b;1\n", ("--keep_columns", "x"), [(0, "a,b", 1)]),
        ("sep=|\r\nuri|x\r\na,b;c|1\r\n", ("--keep_columns", "x"), [(0, "a,b;c", 1)]),
        ("\nuri,x\n\na,1\n\n\n", ("--keep_columns", "x"), [(0, "a", 1)]),
    ],
)
def test_headers(tmp_path, text, arguments, rows):
    (tmp_path / "x.csv").write_text(text)
    assert read(tmp_path / "x.csv", *arguments) == rows


@pytest.mark.parametrize(
    ("text", "arguments", "message"),
    [
        ("a.jpg,cat\nb.jpg,dog\n", (), "--uri_column 0"),
        ("image,label\na,b\n", (), r"--uri_column.*image \(string\), label"),
        ("file_name,image_url\na,b\n", (), "--uri_column.*file_name.*image_url"),
        ("uri,label\na,b\n", ("--uri_column", "0"), "--uri_column '0'"),
        ("uri,label\na,b\n", ("--uri_column", "link"), "--uri_column 'link'.*uri"),
        ("uri,label\na,b\n", ("--keep_columns", "x"), "--keep_columns 'x'.*label"),
        ("uri,label\na,b\n", ("--image_column", "label"), "--image_column label"),
        ("uri,a,a\nx,1,2\n", ("--keep_columns", "a"), "2 columns named 'a'"),
        ("uri,uri\nx,1\n", (), "2 columns named 'uri'"),
        ("a;b,c;d\n1;2,3;4\n", (), "sep=;"),
        ('"a,b\n', (), "first line"),
        ("1,cat\n", ("--uri_column", "1"), "--uri_column 1"),
        ('sep="\nuri"x\na.jpg"1\n', ("--keep_columns", "x"), "x.csv"),
    ],
)
def test_an_unsure_match_is_refused(tmp_path, text, arguments, message):
    (tmp_path / "x.csv").write_text(text)
    with pytest.raises(UsageError, match=message):
        checked("--input", tmp_path / "x.csv", *arguments)


def test_lists_of_uris_are_refused(tmp_path):
    (tmp_path / "x.jsonl").write_text('{"uri": ["a.jpg", "b.jpg"]}\n')
    with pytest.raises(UsageError, match="lists"):
        checked("--input", tmp_path / "x.jsonl", "--uri_column", "uri")


@pytest.mark.parametrize("keep", [("dt",), ("dt", "x")])
def test_hive_directories_of_tables_can_be_kept(tmp_path, keep):
    directory = tmp_path / "dt=2026-01-31"
    directory.mkdir()
    (directory / "x.csv").write_text("uri,x\na.jpg,1\nb.jpg,2\n")
    whole = [(0, "a.jpg", "2026-01-31", 1), (1, "b.jpg", "2026-01-31", 2)]
    assert read(directory / "x.csv", "--keep_columns", *keep) == [row[: 2 + len(keep)] for row in whole]


def test_a_damaged_file_is_refused_before_the_run(tmp_path):
    whole = b"uri\n" + b"".join(b"%d.jpg\n" % number for number in range(1000))
    (tmp_path / "x.csv.gz").write_bytes(gzip.compress(whole)[:-9])
    (tmp_path / "x.csv.zst").write_bytes(pa.compress(whole, codec="zstd", asbytes=True)[:-9])
    (tmp_path / "y.csv").write_bytes(b"\xff\xfeu\0r\0i\0\n")
    for name in ("x.csv.gz", "x.csv.zst", "y.csv"):
        with pytest.raises(UsageError, match=name):
            checked("--input", tmp_path / name)


def test_a_file_of_bytes_is_no_table(tmp_path):
    (tmp_path / "x.csv").write_bytes(b"a\0b\0")
    for arguments in ((), ("--input_format", "csv")):
        with pytest.raises(UsageError, match=r"x\.csv"):
            checked("--input", tmp_path / "x.csv", *arguments)
