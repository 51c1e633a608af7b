"""CSV, TSV and JSON lines as sources: the same rows for every dialect, compression and unit size."""

from __future__ import annotations

import codecs
import csv
import gzip
import io
import itertools
import json
import pickle
import random
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from beamlabel.pipeline.errors import UsageError
from beamlabel.transforms.storage.uris import sample_hash
from beamlabel.transforms.units.plan_units import groups
from support.tables import checked, opened, planned, read

PIECES = [
    "a",
    "ä",
    "図",
    "😀",
    " ",
    '"',
    '""',
    ",",
    ";",
    "\t",
    "|",
    "\n",
    "\r\n",
    "\r",
    "'",
    "#",
    "1",
    "=",
    "\\",
    "\ufeff",
]


def random_rows(rng: random.Random, count: int) -> list[list[str]]:
    def cell() -> str:
        return "".join(rng.choices(PIECES, k=rng.randrange(6)))

    return [[f"{number}-{cell()}.jpg", cell(), cell()] for number in range(count)]


def written(
    rows: list[list[Any]], *, delimiter: str = ",", end: str = "\n", quote_all: bool = False
) -> bytes:
    """Writes RFC 4180; ``csv.writer`` of older Pythons quotes only its own line end."""

    def cell(value: Any) -> str:
        text = str(value)
        quoted = quote_all or any(character in text for character in f'"\r\n{delimiter}')
        return '"' + text.replace('"', '""') + '"' if quoted else text

    return "".join(delimiter.join(map(cell, row)) + end for row in rows).encode()


def test_random_rows_equal_those_that_python_reads() -> None:
    rng = random.Random(0)
    for delimiter, end, quote_all in itertools.product(",;\t|", ("\n", "\r\n", "\r"), (False, True)):
        rows = random_rows(rng, 20)
        data = written(rows, delimiter=delimiter, end=end, quote_all=quote_all)
        text = io.StringIO(data.decode(), newline="")
        assert list(csv.reader(text, delimiter=delimiter, strict=True)) == rows


def compressed(data: bytes, how: str) -> bytes:
    return {
        "plain": lambda: data,
        "bom": lambda: codecs.BOM_UTF8 + data,
        "gzip": lambda: gzip.compress(data),
        "gzip members": lambda: gzip.compress(data[: len(data) // 2]) + gzip.compress(data[len(data) // 2 :]),
        "zstd": lambda: pa.compress(data, codec="zstd", asbytes=True),
        "utf-16": lambda: data.decode().encode("utf-16"),
        "utf-16-be": lambda: codecs.BOM_UTF16_BE + data.decode().encode("utf-16-be"),
        "gzip of utf-16": lambda: gzip.compress(data.decode().encode("utf-16")),
    }[how]()


FORMS = ["plain", "bom", "gzip", "gzip members", "zstd", "utf-16", "utf-16-be", "gzip of utf-16"]


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
def test_random_files_are_read_as_python_reads_them_however_they_are_cut(tmp_path, form, delimiter):
    rng = random.Random(f"{form} {delimiter}")
    path = tmp_path / "x.csv"
    for quote_all, end in itertools.product((False, True), ("\n", "\r\n", "\r")):
        rows = random_rows(rng, 12)
        data = written([["uri", "a", "b"], *rows], delimiter=delimiter, end=end, quote_all=quote_all)
        if rng.random() < 0.5:
            data = data.removesuffix(end.encode())
        path.write_bytes(compressed(data, form))
        inputs = checked("--input", path, "--keep_columns", "a", "b")
        texts = [pa.types.is_string(kind) for _, kind in inputs.kept]
        for shard_rows in (1, 3, 100):
            units, options = planned(inputs, shard_rows=shard_rows)
            assert len(units) == -(-12 // shard_rows)
            assert [units[0].start, *(unit.stop for unit in units)] == [*range(0, 12, shard_rows), 12]
            assert [unit.last for unit in units] == [False] * (len(units) - 1) + [True]
            assert units[0].unit_id.startswith("00000-000000000000")
            assert all((unit.byte_range is None) == (form not in ("plain", "bom")) for unit in units)
            found = opened(units, options)
            assert [row[:2] for row in found] == [(number, row[0]) for number, row in enumerate(rows)]
            for place, is_text in enumerate(texts):
                for got, row in zip(found, rows, strict=True):
                    value = row[1 + place]
                    if is_text and (value or quote_all):
                        assert got[2 + place] == value
                    elif not value and not quote_all:
                        assert got[2 + place] is None
                    else:
                        assert str(got[2 + place]) == value


@pytest.mark.parametrize("block_bytes", [1, 2, 3, 7])
@pytest.mark.parametrize("form", ["plain", "zstd", "utf-16"])
def test_blocks_may_end_anywhere(tmp_path, monkeypatch, block_bytes, form):
    monkeypatch.setattr("beamlabel.transforms.inputs.text_blocks.BLOCK_BYTES", block_bytes)
    rows = [["ä\r\n.jpg", "é"], ['"b"', "\r"], ["c", ""]]
    data = written([["uri", "x"], *rows], end="\r\n")
    (tmp_path / "x.csv").write_bytes(compressed(data, form))
    assert read(tmp_path / "x.csv", "--keep_columns", "x", shard_rows=1) == [
        (0, "ä\r\n.jpg", "é"),
        (1, '"b"', "\r"),
        (2, "c", None),
    ]


BROKEN = (
    b"uri,label\n"
    b"a.jpg,1\n"
    b"\n"
    b"b.jpg\n"  # too few
    b"c.jpg,3,4\n"  # too many
    b"\xff.jpg,5\n"
    b"d.jpg,\xff\n"
    b",6\n"
    b'"",7\n'
    b' e.jpg ,"8\n'  # the closing quotation mark is missing
    b"f.jpg,9\n"
    b"g\0.jpg,10\n"
    b'"h.jpg"x,11\n'
    b"i.jpg,12"
)


@pytest.mark.parametrize("form", ["plain", "gzip"])
@pytest.mark.parametrize("shard_rows", [1, 2, 100])
def test_a_row_that_is_none_fails_and_takes_no_other_with_it(tmp_path, form, shard_rows):
    (tmp_path / "x.csv").write_bytes(compressed(BROKEN, form))
    assert read(tmp_path / "x.csv", "--keep_columns", "label", shard_rows=shard_rows) == [
        (0, "a.jpg", 1),
        (1, "invalid_row"),
        (2, "invalid_row"),
        (3, "invalid_row"),
        (4, "invalid_row"),
        (5, "null_uri"),
        (6, "null_uri"),
        (7, "invalid_row"),
        (8, "f.jpg", 9),
        (9, "invalid_row"),
        (10, "invalid_row"),
        (11, "i.jpg", 12),
    ]


def test_unread_columns_may_have_any_type(tmp_path):
    (tmp_path / "x.csv").write_bytes(b"uri,label\na.jpg,\xff\n")
    assert read(tmp_path / "x.csv") == [(0, "a.jpg")]


LINES = (
    b'{"url": "a.jpg", "n": 1, "deep": {"x": [1, 2.5]}}\r\n'
    b"\n"
    b'{"n": 2}\n'
    b'{"url": null, "n": 3}\n'
    b'{"url": "", "n": 3}\n'
    b'{"url": 7, "n": 4}\n'
    b"[1]\n"
    b'{"url": "b.jpg", "n": \n'
    b'{"url": "c.jpg", "url": "d.jpg", "n": 5}\n'
    b'{"url": "e\xff.jpg", "n": 6}\n'
    b'{"url": "f.jpg", "n": NaN}\n'
    b'{"url": "g.jpg", "n": 1e999}\n'
    b'{"url": "\\ud800.jpg", "n": 7}\n'
    b'{"url": "\\u00e4.jpg", "n": 8, "deep": {"y": "z"}}'
)


@pytest.mark.parametrize("form", ["plain", "bom", "gzip", "zstd"])
@pytest.mark.parametrize("shard_rows", [1, 100])
def test_json_lines(tmp_path, form, shard_rows):
    (tmp_path / "x.jsonl").write_bytes(compressed(LINES, form))
    found = read(tmp_path / "x.jsonl", "--keep_columns", "n", "deep", shard_rows=shard_rows)
    assert found[:4] == [
        (0, "a.jpg", 1, {"x": [1.0, 2.5], "y": None}),
        (1, "null_uri"),
        (2, "null_uri"),
        (3, "null_uri"),
    ]
    assert found[4:-1] == [(row, "invalid_row") for row in range(4, 12)]
    assert found[-1] == (12, "ä.jpg", 8, {"x": None, "y": "z"})


@pytest.mark.parametrize("count", [0, 1, 10_000])
@pytest.mark.parametrize("name", ["x.csv", "x.tsv.gz", "x.jsonl"])
def test_any_number_of_references(tmp_path, count, name):
    uris = [f"gs://bucket/ä {number}.jpg" for number in range(count)]
    if "jsonl" in name:
        data = "".join(
            json.dumps({"uri": uri, "x": {"a": number}}) + "\n" for number, uri in enumerate(uris)
        ).encode()
    else:
        delimiter = "\t" if "tsv" in name else ","
        data = written(
            [["uri", "x"], *([uri, number] for number, uri in enumerate(uris))], delimiter=delimiter
        )
    (tmp_path / name).write_bytes(gzip.compress(data) if name.endswith(".gz") else data)
    inputs = checked("--input", tmp_path / name, *(["--keep_columns", "x"] if count else []))
    units, options = planned(inputs)
    found = opened(units, options)
    assert [row[:2] for row in found] == list(enumerate(uris))
    assert [row[2] for row in found] == [{"a": n} if "jsonl" in name else n for n in range(count)]
    assert len(units) > 10 or count < 100


def test_limit_and_sample_are_those_of_a_list(tmp_path):
    uris = [f"gs://bucket/{number}.jpg" for number in range(500)]
    (tmp_path / "x.txt").write_text("\n".join(uris))
    wanted = [uri for uri in uris if sample_hash(uri) < 0.3]
    for name in ("x.csv", "x.csv.gz"):
        data = written([["id", "uri"], *([number, uri] for number, uri in enumerate(uris))])
        (tmp_path / name).write_bytes(gzip.compress(data) if name.endswith(".gz") else data)
        inputs = checked("--input", tmp_path / name, "--keep_columns", "id")
        for limit in (None, 1, 7, 1000):
            units, options = planned(inputs, sample=0.3, limit=limit, shard_rows=10)
            assert [row[1] for row in opened(units, options)] == wanted[:limit]
            assert [uris[row[2]] for row in opened(units, options)] == wanted[:limit]
            assert [unit.last for unit in units] == [False] * (len(units) - 1) + [True]
            assert all(one.stop == other.start for one, other in itertools.pairwise(units))


def test_a_file_that_changes_between_plan_and_work_is_noticed(tmp_path):
    path = tmp_path / "x.csv"
    path.write_text("uri\na.jpg\nb.jpg\nc.jpg\n")
    units, options = planned(checked("--input", path), shard_rows=2)
    path.write_text("uri\na.jpg\nx.jpg\nc.jpg\n")
    with pytest.raises(ValueError, match="have changed"):
        opened(units[:1], options)
    assert opened(units[1:], options) == [(2, "c.jpg")]


def test_many_small_files_share_units(tmp_path):
    for number in range(30):
        data = f"uri,n\n{number}.jpg,{number}\n".encode()
        (tmp_path / f"{number:02d}.csv").write_bytes(gzip.compress(data) if number % 2 else data)
    inputs = checked("--input", f"{tmp_path}/*.csv", "--keep_columns", "n")
    units, options = planned(inputs)
    assert len(units) == 1
    assert opened(units, options) == [(0, f"{number}.jpg", number) for number in range(30)]
    assert groups(list(enumerate(inputs.files)), in_order=False)


def test_tables_and_parquet_make_one_column(tmp_path):
    (tmp_path / "a.csv").write_text("uri,x,s\na.jpg,1,7\n")
    (tmp_path / "b.jsonl").write_text('{"uri": "b.jpg", "x": 2.5, "s": "8"}\n{"uri": "c.jpg"}\n')
    pq.write_table(pa.table({"uri": ["d.jpg"], "x": pa.array([3.5]), "s": ["9"]}), tmp_path / "c.parquet")
    assert read(tmp_path, "--keep_columns", "x", "s") == [
        (0, "a.jpg", 1.0, "7"),
        (0, "b.jpg", 2.5, "8"),
        (1, "c.jpg", None, None),
        (0, "d.jpg", 3.5, "9"),
    ]


def test_a_number_that_another_files_doubles_cannot_hold_is_refused(tmp_path):
    (tmp_path / "a.csv").write_text("uri,x\na.jpg,9007199254740993\n")
    pq.write_table(pa.table({"uri": ["d.jpg"], "x": pa.array([3.5])}), tmp_path / "c.parquet")
    with pytest.raises(UsageError, match=r"a\.csv.*9007199254740993"):
        checked("--input", tmp_path, "--keep_columns", "x")


def test_units_carry_only_the_columns_that_are_read(tmp_path):
    names = [f"column {number}" for number in range(3000)]
    names[1000:1002] = ["uri", "x"]
    (tmp_path / "x.csv").write_text(",".join(names) + "\n" + ",".join(map(str, range(3000))) + "\n1,2\n")
    units, options = planned(checked("--input", tmp_path / "x.csv", "--keep_columns", "x"))
    assert len(pickle.dumps(units[0])) < 2000
    assert opened(units, options) == [(0, "1000", 1001), (1, "invalid_row")]


def test_the_estimate_is_about_the_number(tmp_path):
    from beamlabel.transforms.inputs.sources.registry import source_of

    data = "uri,label\n" + "".join(f"gs://bucket/{number:06d}.jpg,cat\n" for number in range(20_000))
    for name in ("x.csv", "x.csv.gz"):
        path: Path = tmp_path / name
        path.write_bytes(gzip.compress(data.encode()) if name.endswith(".gz") else data.encode())
        inputs = checked("--input", path)
        _, options = planned(inputs)
        found = source_of("csv").estimate(inputs.files[0], options)
        assert 18_000 <= found <= 22_000
