"""Archives as inputs of the whole job: the same rows as for a plain list, kept members, and refusals."""

from __future__ import annotations

import gzip
import io
import json
import re
import shlex
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from beamlabel.pipeline.output.verify import verify
from beamlabel.transforms import storage
from support.archives import tar, zip_by_hand, zipped
from support.gcs_server import Bucket
from support.images import encode, photo
from support.jobs import FinishedJob, label, photos, uri_list
from support.kept import refusal
from support.paths import ROOT

OWN = ("uri", "ref_id", "image_id", "source_version", "unit_id", "labeled_at")


def pure(job: FinishedJob) -> list[dict[str, object]]:
    """The rows without columns that depend on the location of an image."""
    return [{name: value for name, value in row.items() if name not in OWN} for row in job.rows]


@pytest.fixture(scope="module")
def shots(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """Photographs with Unicode names, one of them broken."""
    directory = tmp_path_factory.mktemp("photos")
    found = {f"ä 漢/{path.name}": path.read_bytes() for path in photos(directory, 12)}
    return {**found, "ä 漢/z.jpg": next(iter(found.values()))[:200]}


@pytest.fixture(scope="module")
def plain(shots: dict[str, bytes], tmp_path_factory: pytest.TempPathFactory) -> FinishedJob:
    """The result of the job over the photographs as files."""
    directory = tmp_path_factory.mktemp("plain")
    for name, data in shots.items():
        storage.write_bytes(f"{directory}/in/{name}", data)
    paths = uri_list(directory / "list.txt", [f"{directory}/in/{name}" for name in shots])
    return label(directory / "out", "--input", paths, "--max_error_rate", 1)


@pytest.mark.parametrize("kind", ["tar", "tar.gz", "zip"])
@pytest.mark.parametrize("where", ["local", "gs"])
def test_the_same_rows_as_by_plain_list(
    tmp_path: Path, gcs: Bucket, shots: dict[str, bytes], plain: FinishedJob, kind: str, where: str
) -> None:
    make = {"tar": tar, "tar.gz": lambda members: gzip.compress(tar(members)), "zip": zipped}[kind]
    path = f"{tmp_path}/ü#1.{kind}" if where == "local" else gcs.uri(f"ü#1.{kind}")
    storage.write_bytes(path, make(shots))
    job = label(tmp_path / "out", "--input", path, "--max_error_rate", 1, "--shard_rows", 5)
    assert job.code == 0
    assert pure(job) == pure(plain)
    assert [row["uri"] for row in job.rows] == [f"{path}#{name}" for name in list(shots)[:12]]
    assert job.manifest["rows"] == {"input": 13, "predicted": 12, "failed": 1, "skipped": 0}
    (failure,) = job.failures
    assert (failure["uri"], failure["reason"]) == (f"{path}#ä 漢/z.jpg", plain.failures[0]["reason"])
    assert not verify(str(tmp_path / "out")).problems


def shard(start: int, stop: int, image: bytes, cls: str = "{}") -> bytes:
    members = []
    for number in range(start, stop):
        caption = {"caption": f"é {number}", "size": [number, 1], "score": number / 4}
        members += [
            (f"{number:04d}.cls", cls.format(number).encode()),
            (f"{number:04d}.jpg", image),
            (f"{number:04d}.json", json.dumps(caption).encode()),
        ]
        if number % 2:
            members.append((f"{number:04d}.txt", b"odd\n"))
    return tar(members)


KEEP = ("cls=truth", "txt", "json.caption=caption", "json.size=size", "json.score", "__key__=key")


def test_shards_of_webdataset_with_columns(tmp_path: Path) -> None:
    image = encode(photo(40, 32), "JPEG")
    directory = tmp_path / "shards"
    directory.mkdir()
    for number in range(3):
        (directory / f"shard-{number:03d}.tar").write_bytes(shard(number * 10, number * 10 + 10, image))
    pattern = f"{directory}/shard-{{000..002}}.tar"
    job = label(tmp_path / "out", "--input", pattern, "--keep_columns", *KEEP)
    assert job.code == 0
    schema = job.table.schema
    assert [schema.field(name).type for name in ("truth", "txt", "caption", "size", "json.score", "key")] == [
        pa.int64(), pa.string(), pa.string(), pa.string(), pa.float64(), pa.string()
    ]  # fmt: skip
    found = [
        tuple(row[name] for name in ("truth", "txt", "caption", "size", "json.score", "key"))
        for row in job.rows
    ]
    assert found == [
        (
            number,
            "odd\n" if number % 2 else None,
            f"é {number}",
            f"[{number}, 1]",
            number / 4,
            f"{number:04d}",
        )
        for number in range(30)
    ]
    assert job.manifest["left_out"] == {"not_an_image": 75}
    assert len(list((tmp_path / "out").glob("part-*.parquet"))) == 1, "small shards share a unit"
    # The same archive as one compressed stream, and with TFRecords.
    whole = tmp_path / "all.tar.gz"
    whole.write_bytes(gzip.compress(shard(0, 30, image)))
    again = label(tmp_path / "again", "--input", whole, "--keep_columns", *KEEP)
    assert pure(again) == pure(job)
    records = ("--output_format", "tfrecord", "--keep_columns", "cls", "json.caption=caption")
    assert label(tmp_path / "records", "--input", directory, *records).code == 0


def test_values_decide_the_type_over_all_archives(tmp_path: Path) -> None:
    image = encode(photo(40, 32), "JPEG")
    (tmp_path / "a.tar").write_bytes(shard(0, 2, image))
    (tmp_path / "b.tar").write_bytes(shard(0, 2, image, "cat {}"))
    job = label(tmp_path / "out", "--input", tmp_path / "*.tar", "--keep_columns", "cls")
    assert [row["cls"] for row in job.rows] == ["0", "1", "cat 0", "cat 1"]


def test_a_broken_member_fails_its_image_alone(tmp_path: Path) -> None:
    image = encode(photo(40, 32), "JPEG")
    members = {"a.jpg": image, "a.json": b"{", "b.jpg": image, "b.json": b'{"x": 1}', "c.jpg": image}
    (tmp_path / "a.tar").write_bytes(tar(members))
    arguments = ("--input", tmp_path / "a.tar", "--keep_columns", "json.x", "--max_error_rate", 1)
    job = label(tmp_path / "out", *arguments)
    assert [row["json.x"] for row in job.rows] == [1, None]
    assert [failure["reason"] for failure in job.failures] == ["corrupt"]


def test_what_is_refused_before_the_run(tmp_path: Path) -> None:
    image = encode(photo(40, 32), "JPEG")
    a = tmp_path / "a.tar"
    a.write_bytes(shard(0, 2, image))
    assert "jpg" in refusal("--input", a, "--keep_columns", "png")
    assert "no columns" in refusal("--input", a, "--keep_columns", "cls", "--uri_column", "x")
    assert "no columns" in refusal("--input", a, "--image_column", "x")
    torn = tmp_path / "torn.tar"
    torn.write_bytes(tar({"a.jpg": image, "b.jpg": image, "a.txt": b"1", "b.txt": b"2"}))
    assert "not consecutive" in refusal("--input", torn, "--keep_columns", "txt")
    mixed = tmp_path / "mixed.tar"
    mixed.write_bytes(tar({"a.jpg": image, "a.json": b'{"x": 1}', "b.jpg": image, "b.json": b'{"x": "1"}'}))
    assert "different kinds" in refusal("--input", mixed, "--keep_columns", "json.x")
    pq.write_table(pa.table({"uri": ["a"], "cls": [1]}), tmp_path / "b.parquet")
    assert "b.parquet" in refusal("--input", a, "--input", tmp_path / "b.parquet", "--keep_columns", "cls")
    assert "--include" in refusal("--input", f"{tmp_path}/")
    assert "shard-9" in refusal("--input", f"{tmp_path}/shard-{{8..9}}.tar".replace("8", "9"))
    (tmp_path / "c.npz").write_bytes(zipped({"x.npy": b"1"}))
    assert "neither" in refusal("--input", f"{tmp_path}/*.npz")


def test_only_new_changed_or_failed_images(tmp_path: Path, shots: dict[str, bytes]) -> None:
    good = {name: data for name, data in shots.items() if not name.endswith("z.jpg")}
    path = tmp_path / "a.zip"
    path.write_bytes(zipped(good))
    assert label(tmp_path / "first", "--input", path).manifest["rows"]["predicted"] == 12
    changed, added = next(iter(good)), {"new.png": next(iter(good.values())), **good}
    path.write_bytes(zipped({**added, changed: list(good.values())[1]}))
    skip = ("--input", path, "--skip_labeled", tmp_path / "first")
    assert [row["uri"] for row in label(tmp_path / "new", *skip).rows] == [f"{path}#new.png"]
    job = label(tmp_path / "changed", *skip, "--changed")
    assert {row["uri"] for row in job.rows} == {f"{path}#new.png", f"{path}#{changed}"}
    (tmp_path / "b.tar").write_bytes(tar(shots))
    failed = label(tmp_path / "failed", "--input", tmp_path / "b.tar", "--max_error_rate", 1)
    again = label(tmp_path / "again", "--retry_failures", tmp_path / "failed", "--max_error_rate", 1)
    assert again.failures[0]["ref_id"] == failed.failures[0]["ref_id"]
    assert again.manifest["rows"]["input"] == 1


def test_no_member_one_member_and_attacks(tmp_path: Path) -> None:
    (tmp_path / "empty.tar").write_bytes(tar({}))
    (tmp_path / "empty.zip").write_bytes(zipped({}))
    (tmp_path / "one.tar").write_bytes(tar({"a.png": encode(photo(40, 32), "PNG")}))
    (tmp_path / "bomb.zip").write_bytes(zip_by_hand(bytes(20 << 20), size=100))
    (tmp_path / "cut.tar").write_bytes(tar({"a.jpg": bytes(9000), "b.jpg": bytes(9000)})[:5000])
    job = label(tmp_path / "out", "--input", f"{tmp_path}/*.*", "--max_error_rate", 1)
    assert [row["uri"] for row in job.rows] == [f"{tmp_path}/one.tar#a.png"]
    assert sorted((f["uri"].rpartition("/")[2], f["reason"]) for f in job.failures) == [
        ("bomb.zip#a.jpg", "corrupt"), ("cut.tar#a.jpg", "truncated")
    ]  # fmt: skip


def test_ten_thousand_members(tmp_path: Path) -> None:
    image = encode(photo(8, 6), "JPEG")
    (tmp_path / "a.tar").write_bytes(tar((f"{number:05d}.jpg", image) for number in range(10_000)))
    job = label(tmp_path / "out", "--input", tmp_path / "a.tar")
    assert job.manifest["rows"] == {"input": 10_000, "predicted": 10_000, "failed": 0, "skipped": 0}
    assert [row["uri"][-9:] for row in job.rows] == [f"{number:05d}.jpg" for number in range(10_000)]


def test_include_and_exclude_choose_archives_and_members(tmp_path: Path) -> None:
    image = encode(photo(40, 32), "JPEG")
    for name in ("a.tar", "b.tar"):
        (tmp_path / name).write_bytes(tar({"x.jpg": image, "x.seg.png": image, "old/y.jpg": image}))
    (tmp_path / "README.md").write_text("about")
    globs = ("--include", "*.tar", "--include", "*.jpg", "--exclude", "b.*", "--exclude", "old/**")
    job = label(tmp_path / "out", "--input", f"{tmp_path}/", *globs)
    assert [row["uri"] for row in job.rows] == [f"{tmp_path}/a.tar#x.jpg"]
    assert job.manifest["left_out"] == {"excluded": 2}


def test_a_bucket_is_asked_once_an_image(gcs: Bucket, tmp_path: Path) -> None:
    buffer = io.BytesIO(encode(photo(40, 32), "JPEG"))
    path = gcs.put("a.tar", tar({f"{number:03d}.jpg": buffer.getvalue() for number in range(200)}))
    assert label(tmp_path / "out", "--input", path).manifest["rows"]["predicted"] == 200
    assert gcs.server.count("GET", contains="a.tar") < 200 + 30


def test_the_command_of_the_page_runs(gcs: Bucket, tmp_path: Path) -> None:
    page = (ROOT / "docs" / "inputs.md").read_text()
    (block,) = re.findall(r"```bash\n(beamlabel .*?train-.*?)```", page, re.DOTALL)
    image = encode(photo(40, 32), "JPEG")
    for number in range(2):
        gcs.put(f"train-{number:06d}.tar", shard(number, number + 1, image))
    _, *words = shlex.split(
        block.replace("\\\n", "").replace("gs://shards", gcs.url).replace("000127", "000001")
    )
    options = dict(zip(words[:6:2], words[1:6:2], strict=True))
    job = label(tmp_path / options["--output"], "--input", options["--input"], *words[6:])
    assert [(row["cls"], row["caption"]) for row in job.rows] == [(0, "é 0"), (1, "é 1")]
