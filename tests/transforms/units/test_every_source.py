"""Every kind of input with 0, 1 and 10,000 references: each comes out once, in order, for all unit sizes."""

import io
import json
import tarfile
import zipfile
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from beamlabel.pipeline.job.preflight import check_inputs
from beamlabel.pipeline.job.settings import source_options
from beamlabel.pipeline.options.parser import parse
from beamlabel.transforms.inputs.selection import Selection
from beamlabel.transforms.records import ImageRef, UnitEnd
from beamlabel.transforms.units.open_unit import open_unit
from beamlabel.transforms.units.plan_units import plan_files

JPEG = b"\xff\xd8\xff\xe0"


def name(number: int) -> str:
    return f"été {number:05} #1.jpg"


def text(directory: Path, count: int) -> Path:
    path = directory / "list.txt"
    path.write_text("".join(f"{name(n)}\n" for n in range(count)))
    return path


def csv(directory: Path, count: int) -> Path:
    path = directory / "list.csv"
    path.write_text("uri,note\n" + "".join(f'{name(n)},"a\nb"\n' for n in range(count)))
    return path


def jsonl(directory: Path, count: int) -> Path:
    path = directory / "list.jsonl"
    path.write_text("".join(json.dumps({"uri": name(n)}) + "\n" for n in range(count)))
    return path


def parquet(directory: Path, count: int) -> Path:
    path = directory / "uris.parquet"
    pq.write_table(pa.table({"uri": pa.array([name(n) for n in range(count)], pa.string())}), path)
    return path


def parquet_lists(directory: Path, count: int) -> Path:
    path = directory / "lists.parquet"
    values = [[name(n) for n in range(start, min(start + 3, count))] for start in range(0, count, 3)]
    pq.write_table(pa.table({"uri": pa.array(values, pa.list_(pa.string()))}), path)
    return path


def parquet_images(directory: Path, count: int) -> Path:
    path = directory / "images.parquet"
    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    values = [{"bytes": JPEG, "path": name(n)} for n in range(count)]
    pq.write_table(pa.table({"image": pa.array(values, kind)}), path, row_group_size=1000)
    return path


def tar(directory: Path, count: int) -> Path:
    path = directory / "a.tar"
    with tarfile.open(path, "w") as archive:
        for n in range(count):
            member = tarfile.TarInfo(name(n))
            member.size = len(JPEG)
            archive.addfile(member, io.BytesIO(JPEG))
    return path


def tar_gz(directory: Path, count: int) -> Path:
    path = directory / "a.tar.gz"
    with tarfile.open(tar(directory, count)) as there, tarfile.open(path, "w:gz", compresslevel=1) as archive:
        for member in there:
            archive.addfile(member, there.extractfile(member))
    return path


def zipped(directory: Path, count: int) -> Path:
    path = directory / "a.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for n in range(count):
            archive.writestr(name(n), JPEG)
    return path


def listing(directory: Path, count: int) -> Path:
    album = directory / "album"
    album.mkdir()
    for n in range(count):
        (album / name(n)).touch()
    return album


SOURCES = [text, csv, jsonl, parquet, parquet_lists, parquet_images, tar, tar_gz, zipped, listing]
# A directory without an image is a usage error; see test_match_inputs.py.
CASES = [(source, count) for source in SOURCES for count in (0, 1, 10_000) if (source, count) != (listing, 0)]


@pytest.mark.parametrize(("source", "count"), CASES)
def test_each_reference_comes_out_once(tmp_path, source, count):
    path = source(tmp_path, count)
    options, _ = parse(["--input", str(path), "--module", "demo", "--output", str(tmp_path / "out")])
    inputs = check_inputs(options.inputs, options.output)
    for shard_rows in (None, 777):
        read = source_options(options.inputs, inputs, shard_rows, options.loading)
        units = list(plan_files(enumerate(inputs.files), read))
        found = []
        for unit in units:
            *refs, end = open_unit(unit, read, Selection(read.selection))
            assert isinstance(end, UnitEnd) and (end.sent, end.skipped) == (len(refs), 0)
            assert all(isinstance(ref, ImageRef) and ref.unit_id == unit.unit_id for ref in refs)
            assert [ref.row for ref in refs] == sorted({ref.row for ref in refs})
            found += refs
        assert [ref.uri[-len(name(0)) :] for ref in found] == [name(n) for n in range(count)]
        assert len({ref.ref_id for ref in found}) == count
        assert [unit.last for unit in units] == [False] * (len(units) - 1) + [True]
        assert [unit.start for unit in units] == [0, *(unit.stop for unit in units[:-1])]
