"""References of more than 64 KB, and lists that unpack to enormous sizes."""

import gzip
import io
import json
import lzma
import tarfile
import tracemalloc
import zipfile
import zlib

import pyarrow as pa
import pytest

from beamlabel.transforms.inputs.parquet_source import ParquetColumns
from beamlabel.transforms.inputs.selection import Selection
from beamlabel.transforms.inputs.sources.source import SourceOptions
from beamlabel.transforms.inputs.tables.described import described
from beamlabel.transforms.inputs.text_blocks import CutLine, lines_of
from beamlabel.transforms.inputs.uri_length import MAX_URI_BYTES
from beamlabel.transforms.records import Failure, InputFile, Reason
from beamlabel.transforms.units.open_unit import open_unit
from beamlabel.transforms.units.plan_units import plan_files

MANY = 96 << 20
"""Bytes of a line that must not be held."""
LITTLE = 32 << 20
LONG = "https://images.example/" + "a" * (MAX_URI_BYTES - 23)


def outcomes(path, format, *, columns=None, uri_column=None, **options):
    """The references of a file by row: the URI or the reason."""
    file = InputFile(str(path), format, path.stat().st_size)
    (file,) = described(
        [file], uri_column, (), rows=None, in_threads=lambda function, all_: [*map(function, all_)]
    )
    made = SourceOptions("/", columns or ParquetColumns(uri=uri_column), **options)
    units = list(plan_files([(0, file)], made))
    refs = [ref for unit in units for ref in list(open_unit(unit, made, Selection(made.selection)))[:-1]]
    assert all(ref.uri is None for ref in refs if isinstance(ref, Failure))
    return {ref.row: ref.reason if isinstance(ref, Failure) else ref.uri for ref in refs}


def gzipped(path, *parts):
    """Writes parts, each a text or (text, times), as gzip."""
    with gzip.open(path, "wb", compresslevel=1) as file:
        for part in parts:
            text, times = part if isinstance(part, tuple) else (part, 1)
            for _ in range(times):
                file.write(text)
    return path


ENDLESS = (b"a" * (1 << 20), MANY >> 20)


def peak_of(function):
    tracemalloc.start()
    try:
        result = function()
        return result, tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_a_uri_of_the_longest_kind_is_one_and_a_byte_more_is_none(tmp_path):
    assert len(LONG) == MAX_URI_BYTES
    path = tmp_path / "list.txt"
    path.write_bytes(
        b"\r\n".join(text.encode() for text in (LONG, LONG + "a", "\u00e9" * 40_000, "#" + LONG * 2, "a.jpg"))
    )
    assert outcomes(path, "text") == {
        0: LONG, 1: Reason.URI_TOO_LONG, 2: Reason.URI_TOO_LONG, 4: "a.jpg",
    }  # fmt: skip


@pytest.mark.parametrize("blocks", [1, 7, 100, 10_000])
def test_lines_are_the_same_however_they_come(blocks):
    text = b"short\n\n" + b"x" * 300 + b"\n" + b"y" * 100 + b"\nlast" + b"z" * 200
    lines = list(lines_of(iter([text[at : at + blocks] for at in range(0, len(text), blocks)]), 100))
    assert [bytes(line) for line in lines] == [
        b"short\n", b"\n", b"x" * 100, b"y" * 100 + b"\n", b"last" + b"z" * 96,
    ]  # fmt: skip
    assert {place: line.size for place, line in enumerate(lines) if isinstance(line, CutLine)} == {
        2: 301,
        4: 204,
    }


@pytest.mark.parametrize("packing", ["gzip", "zstd", "utf-16"])
def test_an_endless_line_is_passed_over(tmp_path, packing):
    path = tmp_path / "list.txt"
    if packing == "gzip":
        gzipped(path, b"a.jpg\n", ENDLESS, b"\nb.jpg\n")
    elif packing == "zstd":
        with pa.CompressedOutputStream(str(path), "zstd") as file:
            file.write(b"a.jpg\n")
            for _ in range(MANY >> 20):
                file.write(ENDLESS[0])
            file.write(b"\nb.jpg\n")
    else:
        wide = ("a" * (1 << 19)).encode("utf-16-le")
        gzipped(
            path, "\ufeffa.jpg\n".encode("utf-16-le"), (wide, MANY >> 20), "\nb.jpg\n".encode("utf-16-le")
        )
    found, peak = peak_of(lambda: outcomes(path, "text"))
    assert path.stat().st_size < 2 << 20
    assert (found == {0: "a.jpg", 1: Reason.URI_TOO_LONG, 2: "b.jpg"}) or packing == "utf-16"
    assert peak < LITTLE


@pytest.mark.parametrize("delimiter", [",", "\t"])
@pytest.mark.parametrize("size", [MAX_URI_BYTES + 1, 200_000, 5 << 20])
@pytest.mark.parametrize("quoted", [True, False])
@pytest.mark.parametrize("packed", [True, False])
def test_long_cells_of_csv(tmp_path, delimiter, size, quoted, packed):
    cell = "a" * size
    cell = f'"{cell}"' if quoted else cell
    rows = [["uri", "label"], ["a.jpg", "1"], [cell, "2"], ["b.jpg", "3"], ["c.jpg", cell], ["d.jpg", "4"]]
    text = "\n".join(delimiter.join(row) for row in rows).encode()
    path = tmp_path / "list.csv"
    path.write_bytes(gzip.compress(text) if packed else text)
    found = outcomes(path, "csv" if delimiter == "," else "tsv", uri_column="uri")
    label = "c.jpg" if size == MAX_URI_BYTES + 1 else Reason.INVALID_ROW
    assert found == {0: "a.jpg", 1: Reason.URI_TOO_LONG, 2: "b.jpg", 3: label, 4: "d.jpg"}


def test_a_quoted_cell_of_many_lines_is_too_long(tmp_path):
    path = tmp_path / "list.csv"
    path.write_text('uri,label\n"' + "a\n" * 40_000 + '",1\nb.jpg,2\n')
    assert outcomes(path, "csv", uri_column="uri") == {0: Reason.URI_TOO_LONG, 1: "b.jpg"}


@pytest.mark.parametrize("format", ["csv", "jsonl"])
def test_an_endless_cell_is_passed_over(tmp_path, format):
    if format == "csv":
        parts = b"uri,n\na.jpg,1\n", b",2\nb.jpg,3\n"
    else:
        parts = b'{"uri":"a.jpg"}\n{"n": 1, "uri" : "', b'"}\n{"uri":"b.jpg"}\n'
    path = gzipped(tmp_path / "list", parts[0], ENDLESS, parts[1])
    found, peak = peak_of(lambda: outcomes(path, format, uri_column="uri"))
    assert found == {0: "a.jpg", 1: Reason.URI_TOO_LONG, 2: "b.jpg"}
    assert peak < LITTLE


def test_endless_blank_lines_are_not_held(tmp_path):
    path = gzipped(tmp_path / "list", b"uri,n\na.jpg,1\n", (b" " * 1023 + b"\n", 1_000), b"b.jpg,3\n")
    blank = gzipped(tmp_path / "more", b'{"uri":"a"}\n', (b"\n" * (1 << 14), 40), b'{"uri":"b"}\n')
    assert outcomes(path, "csv", uri_column="uri")[0] == "a.jpg"
    found, peak = peak_of(lambda: outcomes(blank, "jsonl", uri_column="uri"))
    assert found == {0: "a", 1: "b"}
    assert peak < LITTLE


@pytest.mark.parametrize("packed", [True, False])
def test_long_lines_of_json(tmp_path, packed):
    long = "a" * (MAX_URI_BYTES + 1)
    lines = [
        {"uri": long}, {"uri": "a.jpg"}, {"uri": "a" * (5 << 20)}, {"x": "a" * (5 << 20), "uri": "b"}, {"uri": "b.jpg"},
    ]  # fmt: skip
    text = "\n".join(map(json.dumps, lines)).encode()
    path = tmp_path / "list.jsonl"
    path.write_bytes(gzip.compress(text) if packed else text)
    assert outcomes(path, "jsonl", uri_column="uri") == {
        0: Reason.URI_TOO_LONG, 1: "a.jpg", 2: Reason.URI_TOO_LONG, 3: Reason.INVALID_ROW, 4: "b.jpg",
    }  # fmt: skip


def test_rows_of_a_plain_table_are_read_by_range_around_a_cut_one(tmp_path):
    rows = [f"{n}.jpg,1" for n in range(300)]
    rows[100] = "a" * (9 << 20) + ",1"
    for end in ("\n", "\r\n", "\r"):
        path = tmp_path / "list.csv"
        path.write_bytes(("uri,n" + end + end.join(rows) + end).encode())
        found = outcomes(path, "csv", uri_column="uri", shard_rows=7)
        assert found.pop(100) is Reason.URI_TOO_LONG
        assert found == {n: f"{n}.jpg" for n in range(300) if n != 100}


def test_units_of_long_references_are_small(tmp_path):
    path = tmp_path / "list.txt"
    path.write_text("".join(f"{n:05}" + "a" * 60_000 + "\n" for n in range(1_000)))
    options = SourceOptions("/", min_unit_rows=10_000)
    units = list(plan_files([(0, InputFile(str(path), "text", path.stat().st_size))], options))
    assert [unit.start for unit in units] == [0, *(unit.stop for unit in units[:-1])]
    assert units[-1].stop == 1_000
    assert max(unit.stop - unit.start for unit in units) <= 141


@pytest.mark.parametrize("kind", ["tar", "tar.gz", "tar.bz2", "tar.xz"])
@pytest.mark.parametrize("form", [tarfile.PAX_FORMAT, tarfile.GNU_FORMAT])
def test_long_names_of_members(tmp_path, kind, form):
    name = "/".join(["d" * 200] * 400)
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=form) as tar:
        for one in (f"{name}/a.jpg", "b.jpg"):
            info = tarfile.TarInfo(one)
            info.size = 3
            tar.addfile(info, io.BytesIO(b"abc"))
    pack = {"tar.gz": gzip.compress, "tar.xz": lzma.compress, "tar.bz2": __import__("bz2").compress}.get(
        kind, bytes
    )
    path = tmp_path / f"images.{kind}"
    path.write_bytes(pack(buffer.getvalue()))
    assert outcomes(path, "tar") == {0: Reason.URI_TOO_LONG, 1: f"{path}#b.jpg"}


def test_the_longest_name_of_a_zip_is_too_long_with_its_path(tmp_path):
    path = tmp_path / "images.zip"
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("d" * 65_530 + ".jpg", b"abc")
        file.writestr("b.jpg", b"abc")
    assert outcomes(path, "zip") == {0: Reason.URI_TOO_LONG, 1: f"{path}#b.jpg"}


def test_headers_of_a_tar_that_say_nothing_are_not_held(tmp_path):
    pax = b"".join(_record(f"comment{n}", "x" * 1000) for n in range(200))
    header = tarfile.TarInfo("pax")
    header.type, header.size = tarfile.XGLTYPE, len(pax)
    block = header.tobuf(tarfile.USTAR_FORMAT) + pax.ljust(-(-len(pax) // 512) * 512, b"\0")
    path = tmp_path / "images.tar.gz"
    squeeze = zlib.compressobj(1, wbits=31)
    path.write_bytes(
        b"".join(squeeze.compress(block) for _ in range(100))
        + squeeze.compress(bytes(1024))
        + squeeze.flush()
    )
    found, peak = peak_of(lambda: outcomes(path, "tar"))
    assert found == {}
    assert peak < LITTLE


def _record(keyword, value):
    rest = f" {keyword}={value}\n"
    length = len(rest) + len(str(len(rest)))
    length += len(str(length)) - (length - len(rest))
    return f"{length}{rest}".encode()
