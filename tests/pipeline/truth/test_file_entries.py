"""Truth files of every format give the same entries; errors name the line."""

import csv
import gzip
import io
import json
import random

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from beamlabel.pipeline.errors import UsageError
from beamlabel.pipeline.truth.file_entries import read_entries

PAIRS = [("/a b/1.jpg", "cat"), ('say "x",/2.jpg', "dog, the"), ("gs://b/ä.jpg", "öl"), ("/n\n.jpg", "a;b")]


def read(path, key=None, value=None, separator=None):
    entries = read_entries(str(path), key, value, separator)
    sets = [entries.class_sets[code] if code >= 0 else None for code in entries.codes]
    return dict(zip(entries.names.to_pylist(), sets, strict=True)), entries


def text_of(pairs, header=("uri", "class"), **dialect):
    file = io.StringIO()
    csv.writer(file, **dialect).writerows([header, *pairs])
    return file.getvalue()


def jsonl_of(pairs):
    return "".join(json.dumps({"uri": uri, "class": name}, ensure_ascii=False) + "\n" for uri, name in pairs)


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("t.csv", text_of(PAIRS).encode()),
        ("T.CSV", text_of(PAIRS, lineterminator="\n").encode("utf-8-sig")),
        ("t.csv", text_of(PAIRS, delimiter=";").encode()),
        ("t.csv", ("sep=|\r\n" + text_of(PAIRS, delimiter="|")).encode()),
        ("t.csv", text_of([(b, a) for a, b in PAIRS], ("Label", "URL"), quoting=csv.QUOTE_ALL).encode()),
        ("t.csv", text_of(PAIRS).encode("utf-16")),
        ("t.csv.gz", gzip.compress(text_of(PAIRS).encode(), mtime=0)),
        ("t.tsv", text_of(PAIRS, delimiter="\t").encode()),
        ("t.jsonl", jsonl_of(PAIRS).encode()),
        ("t.txt", jsonl_of(PAIRS).encode("utf-8-sig")),
        ("t.ndjson.gz", gzip.compress(b"\n" + jsonl_of(PAIRS).encode(), mtime=0)),
    ],
)
def test_formats(tmp_path, name, data):
    (tmp_path / name).write_bytes(data)
    found, entries = read(tmp_path / name)
    assert found == {uri: (label,) for uri, label in PAIRS}
    assert not entries.multi_label


def test_parquet_and_lists(tmp_path):
    uris, names = zip(*PAIRS, strict=True)
    pq.write_table(pa.table({"path": uris, "x": [0.5] * 4, "truth": names}), tmp_path / "t")
    assert read(tmp_path / "t")[0] == {uri: (label,) for uri, label in PAIRS}
    pq.write_table(pa.table({"path": uris, "tags": [["b", "a"], ["a"], [], None]}), tmp_path / "t.parquet")
    found, entries = read(tmp_path / "t.parquet")
    assert found == {uris[0]: ("a", "b"), uris[1]: ("a",)}
    assert entries.multi_label
    assert entries.empty.count == 2
    pq.write_table(
        pa.table({"path": uris, "id": pa.array([3, -1, 0, 3], pa.int32())}), tmp_path / "i.parquet"
    )
    found, entries = read(tmp_path / "i.parquet")
    assert list(found.values()) == [("3",), ("-1",), ("0",), ("3",)]
    assert entries.are_ids


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("t.csv", "uri,tags\na,b | c\nd,c\n"),
        ("t.jsonl", '{"uri": "a", "tags": ["c", "b"]}\n{"uri": "d", "tags": "c"}\n'),
        ("t.csv", 'uri,tags\na,"[""b"", ""c""]"\nd,c\n'),
        ("t.csv", "uri,tags\na,b\nd,c\na,c\n"),
    ],
)
def test_several_classes(tmp_path, name, text):
    (tmp_path / name).write_text(text)
    found, entries = read(tmp_path / name, separator="|")
    assert found == {"a": ("b", "c"), "d": ("c",)}
    assert entries.multi_label


@pytest.mark.parametrize(
    "text", ["a.jpg,cat\nb.png,dog\n", "cat,a.jpg\ndog,b.png\n", "a.jpg;cat\nb.png;dog\n"]
)
def test_without_a_header(tmp_path, text):
    (tmp_path / "t.csv").write_text(text)
    assert read(tmp_path / "t.csv")[0] == {"a.jpg": ("cat",), "b.png": ("dog",)}


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        ("t.csv", b"uri,class\na,b\nc,\xe4\n", "line 3 is not UTF-8"),
        ("t.txt", b"a b\nc \xe4\n", "line 2 is not UTF-8"),
        ("t.csv", b"uri,class\na,b\0\n", "line 2 holds a NUL"),
        ("t.txt", b"a b\nc d\0\n", "line 2 holds a NUL"),
        ("t.csv", b'uri,class\n"a\n",b\n"c,d\n', "line 4 is malformed"),
        ("t.csv", b"uri,class\na,b,c\n", "line 2 has 3 fields"),
        ("t.csv", b"", "no column"),
        ("t.csv", b"uri,class\n", "no image with a class"),
        ("t.csv", b"uri\na\n", "no column holds classes"),
        ("t.csv", b"a.jpg,cat,x\nb.jpg,dog,y\n", "no column is named ref_id, "),
        ("t.csv", b"uri,one,two\na,b,c\n", "--truth_column"),
        ("t.csv", b"uri,class,class\na,b,c\n", "two columns"),
        ("t.json", b'[{"uri": "a", "class": "b"}]\n', "line 1 is not a JSON object"),
        ("t.jsonl", b'{"uri": "a", "class": "b"}\n{"uri":\n', "line 2 is not JSON"),
        ("t.jsonl", b'{"uri": "a", "class": 1.5}\n', "line 1: '1.5' is not a class"),
        ("t.jsonl", b'{"uri": "a", "class": true}\n', "line 1: 'True' is not a class"),
        ("t.jsonl", b'{"uri": [7], "class": "b"}\n', "line 1: .* does not name an image"),
        ("t.csv.gz", gzip.compress(b"uri,class\n" + b"a,b\n" * 99, mtime=0)[:-9], "damaged gzip"),
        ("t.csv", b"PAR1 and no more", "Parquet"),
        ("t.dat", b"\0\1\2\3", "neither Parquet nor text"),
    ],
)
def test_files_that_cannot_be_read(tmp_path, name, data, message):
    (tmp_path / name).write_bytes(data)
    with pytest.raises(UsageError, match=message) as caught:
        read(tmp_path / name)
    assert name in str(caught.value)


def test_options_that_name_no_column(tmp_path):
    (tmp_path / "t.csv").write_text("uri,class\na,b\n")
    (tmp_path / "t.txt").write_text("a b\n")
    for name, message in (("t.csv", "has the columns uri, class"), ("t.txt", "is text")):
        with pytest.raises(UsageError, match=f"--truth_key mine: .*{message}"):
            read(tmp_path / name, key="mine")
        with pytest.raises(UsageError, match=f"--truth_column mine: .*{message}"):
            read(tmp_path / name, value="mine")


def drawn_text(drawn):
    """Random text with all characters, especially those of CSV and JSON."""
    odd = "\"',;|\t\r\n\\#{}[] \u00e4\u2028\ufeff\U0001f431"
    letters = [drawn.choice([*odd, chr(drawn.randrange(33, 0x2FFF))]) for _ in range(drawn.randrange(1, 9))]
    return "a" + "".join(letters)


@pytest.mark.parametrize("seed", range(20))
def test_what_is_written_is_read(tmp_path, seed):
    drawn = random.Random(seed)
    pairs = {drawn_text(drawn): drawn_text(drawn) for _ in range(30)}
    (tmp_path / "t.csv").write_bytes(text_of(pairs.items(), quoting=csv.QUOTE_ALL).encode())
    (tmp_path / "t.jsonl").write_bytes(jsonl_of(pairs.items()).encode())
    pq.write_table(pa.table({"uri": list(pairs), "class": list(pairs.values())}), tmp_path / "t.parquet")
    for name in ("t.csv", "t.jsonl", "t.parquet"):
        found, entries = read(tmp_path / name)
        assert found == {uri: (label,) for uri, label in pairs.items()}, name
        assert not entries.conflicts.count
