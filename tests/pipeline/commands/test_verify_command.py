"""``beamlabel verify``: good results pass, and every kind of damage is reported."""

import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from beamlabel.pipeline.errors import UsageError
from beamlabel.pipeline.output.verify import verify
from beamlabel.transforms import storage
from beamlabel.transforms.rows.tfrecord import read_records, write_records
from support.jobs import command, label, photos, uri_list

FORMATS = {
    "parquet": (),
    "tfrecord": ("--output_format", "tfrecord"),
    "gzip": ("--output_format", "tfrecord", "--tfrecord_compression", "gzip"),
}


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    """Eight photographs with a number and a tag each, and two references to missing files."""
    directory = tmp_path_factory.mktemp("inputs")
    paths = [*photos(directory / "photos", 8), directory / "missing.png", directory / "gone.png"]
    table = pa.table({"uri": [str(path) for path in paths], "n": range(10), "tag": list("abcdefghij")})
    pq.write_table(table, directory / "in.parquet")
    names = uri_list(directory / "names.txt", [f"class {number}" for number in range(11)])
    return (
        "--input", directory / "in.parquet", "--keep_columns", "n", "tag", "--labels", names,
        "--shard_rows", 4, "--max_error_rate", 0.5,
    )  # fmt: skip


@pytest.fixture(scope="module")
def results(tmp_path_factory, inputs):
    """A result of each format with three shards and one shard of failures; tests copy them."""
    directory = tmp_path_factory.mktemp("results")
    for name, options in FORMATS.items():
        job = label(directory / name, *inputs, *options)
        assert job.code == 0
        assert job.manifest["rows"] == {"input": 10, "predicted": 8, "failed": 2, "skipped": 0}
    return directory


@pytest.fixture(params=FORMATS)
def result(request, results, tmp_path):
    return Path(shutil.copytree(results / request.param, tmp_path / request.param))


@pytest.fixture
def parquet(results, tmp_path):
    return Path(shutil.copytree(results / "parquet", tmp_path / "parquet"))


def data_files(result: Path) -> list[Path]:
    return sorted(path for path in result.glob("part-*"))


def edit_manifest(result: Path, edit: Callable[[dict], object]) -> None:
    path = result / "_MANIFEST.json"
    manifest = json.loads(path.read_text())
    edit(manifest)
    path.write_text(json.dumps(manifest))


def cut(path: Path, count: int) -> None:
    path.write_bytes(path.read_bytes()[:-count])


def flip(path: Path, place: int) -> None:
    data = bytearray(path.read_bytes())
    data[place] ^= 1
    path.write_bytes(data)


def test_a_result_is_good(result):
    assert len(data_files(result)) >= 2
    done = command("verify", result)
    assert (done.returncode, done.stdout) == (0, "")
    assert "consistent: 8 images predicted, 2 failed, 0 skipped" in done.stderr
    assert verify(str(result), quick=True).problems == ()


def test_results_without_a_row_without_a_failure_and_above_the_error_rate_are_good(tmp_path, inputs):
    uris = uri_list(tmp_path / "missing.txt", [tmp_path / "missing.png"])
    for name, arguments, code in (
        ("none", ("--input", uris, "--max_error_rate", 1), 0),
        ("above", ("--input", uris), 1),
        ("all", (*inputs, "--limit", 3), 0),
    ):
        job = label(tmp_path / name, *arguments)
        assert job.code == code
        assert verify(str(job.output)).problems == (), name
    told = command("verify", tmp_path / "above").stderr
    assert "consistent, but nothing was predicted: 1 failed, 0 skipped" in told


def test_a_result_on_gs_is_good_and_damage_is_seen(gcs, inputs):
    output = gcs.uri("out/night")
    assert label(output, *inputs).code == 0
    assert verify(output).problems == ()
    (first, *_) = [name for name in gcs.list("out/night/part-") if name.endswith(".parquet")]
    downloads = gcs.server.count("GET", contains=first)
    assert verify(output + "/").problems == ()
    assert gcs.server.count("GET", contains=first) - downloads == 1, (
        "its bytes once; the size comes from the listing"
    )

    gcs.put("out/night/part-stray.parquet", b"PAR1")
    gcs.put(first, gcs.get(first)[:-5])
    problems = "\n".join(verify(output).problems)
    assert "part-stray.parquet: not in the manifest" in problems
    assert "the manifest says" in problems and "cannot be read" in problems
    storage.delete(f"{gcs.url}/{first}")
    assert f"{first.rpartition('/')[2]}: missing" in "\n".join(verify(output).problems)


DAMAGE: dict[str, tuple[Callable[[Path], object], str]] = {
    "shortened": (lambda r: cut(data_files(r)[0], 9), "bytes, the manifest says"),
    "a byte flipped": (lambda r: flip(data_files(r)[1], 100), "its SHA-256 is"),
    "deleted": (lambda r: data_files(r)[0].unlink(), ": missing"),
    "emptied": (lambda r: data_files(r)[0].write_bytes(b""), ": 0 bytes, the manifest says"),
    "a stray shard": (
        lambda r: shutil.copy(data_files(r)[0], r / "part-other-00000.parquet"),
        "part-other-00000.parquet: not in the manifest",
    ),
    "a stray directory": (
        lambda r: [(r / "more").mkdir(), (r / "more" / "x.txt").write_text("")],
        "more/x.txt: not in the manifest",
    ),
    "stray failures": (
        lambda r: (r / "_failures" / "part-old.jsonl").write_text(""),
        "_failures/part-old.jsonl: not in the manifest",
    ),
    "no _SUCCESS": (lambda r: (r / "_SUCCESS").unlink(), "_SUCCESS: missing"),
    "failures deleted": (lambda r: shutil.rmtree(r / "_failures"), ".jsonl: missing"),
    "failures cut": (
        lambda r: [p.write_text(p.read_text().splitlines()[0] + "\n") for p in r.glob("_failures/*")],
        "1 rows, the manifest says 2",
    ),
    "another reason": (
        lambda r: [p.write_text(p.read_text().replace('"not_found"', '"timeout"', 1)) for p in r.glob("_failures/*")],
        "1 rows failed with timeout, the manifest says 0",
    ),
    "no reason": (
        lambda r: [p.write_text(p.read_text().replace('"not_found"', '"bad luck"', 1)) for p in r.glob("_failures/*")],
        "'bad luck' is not a known reason",
    ),
    "failures no JSON": (
        lambda r: [p.write_text("{\n") for p in r.glob("_failures/*")],
        "cannot be read",
    ),
    "no failures": (
        lambda r: [p.write_text('{"uri": null}\n') for p in r.glob("_failures/*")],
        "line 1 is not a failure",
    ),
    "more predicted": (lambda r: edit_manifest(r, lambda m: m["rows"].update(predicted=9)), "9 predicted + 2 failed"),
    "input and predicted": (
        lambda r: edit_manifest(r, lambda m: m["rows"].update(input=11, predicted=9)),
        "9 rows predicted, but its data files have 8",
    ),
    "skipped for failed": (
        lambda r: edit_manifest(r, lambda m: m["rows"].update(failed=1, skipped=1)),
        "1 rows failed, but its failures files have 2",
    ),
    "by reason": (
        lambda r: edit_manifest(r, lambda m: m.update(failed_by_reason={"not_found": 1, "corrupt": 1})),
        "0 rows failed with corrupt, the manifest says 1",
    ),
    "reasons missing": (lambda r: edit_manifest(r, lambda m: m.update(failed_by_reason={})), "but by reason 0"),
    "error rate": (lambda r: edit_manifest(r, lambda m: m.update(error_rate=0.0)), "error_rate is 0.0"),
    "max error rate": (
        lambda r: edit_manifest(r, lambda m: m["options"].update(max_error_rate=0.01, min_failures=1)),
        "within_error_rate is True, which contradicts its rows",
    ),
    "success denied": (
        lambda r: edit_manifest(r, lambda m: m.update(within_error_rate=False)),
        "_SUCCESS: exists, but the error rate is above",
    ),
    "rows of a file": (
        lambda r: edit_manifest(r, lambda m: m["files"][0].update(rows=3)),
        ": 4 rows, the manifest says 3",
    ),
    "bytes of a file": (lambda r: edit_manifest(r, lambda m: m["files"][0].update(bytes=3)), "the manifest says 3"),
    "hash of a file": (
        lambda r: edit_manifest(r, lambda m: m["files"][0].update(sha256="0" * 64)),
        "the manifest says 0000",
    ),
    "a file not named": (lambda r: edit_manifest(r, lambda m: m["files"].pop(0)), "not in the manifest"),
    "a file named twice": (lambda r: edit_manifest(r, lambda m: m["files"].append(m["files"][0])), "2 times"),
    "a name that leads out": (
        lambda r: edit_manifest(r, lambda m: m["files"][0].update(name="../in.parquet")),
        "is not a file of this directory",
    ),
    "another module": (
        lambda r: edit_manifest(r, lambda m: m["module"].update(fingerprint="0")),
        "two different module fingerprints",
    ),
    "no files": (lambda r: edit_manifest(r, lambda m: m.pop("files")), "damaged, or not a manifest"),
    "half a manifest": (
        lambda r: (r / "_MANIFEST.json").write_text((r / "_MANIFEST.json").read_text()[:-20]),
        "damaged, or not a manifest",
    ),
    "no object": (lambda r: (r / "_MANIFEST.json").write_text("[]"), "damaged, or not a manifest"),
}  # fmt: skip


@pytest.mark.parametrize("damage", DAMAGE)
def test_damage_is_named(result, damage):
    do, message = DAMAGE[damage]
    do(result)
    assert message in "\n".join(verify(str(result)).problems)


@pytest.mark.parametrize(
    "damage", ["shortened", "deleted", "a stray shard", "rows of a file", "more predicted"]
)
def test_a_quick_look_finds_faults_without_hashes(parquet, damage):
    do, message = DAMAGE[damage]
    do(parquet)
    assert message in "\n".join(verify(str(parquet), quick=True).problems)


def test_the_command_names_each_problem_on_a_line_and_ends_with_1(parquet):
    for name in ("deleted", "no _SUCCESS"):
        DAMAGE[name][0](parquet)
    done = command("verify", parquet)
    assert done.returncode == 1
    assert len(done.stdout.splitlines()) == 2
    assert "2 problems" in done.stderr


def rewritten(result: Path, change: Callable[[pa.Table], pa.Table]) -> None:
    """Replaces the first shard with another one and updates its size and hash in the manifest."""
    import hashlib

    path = data_files(result)[0]
    pq.write_table(change(pq.read_table(path)), path, compression="zstd")
    data = path.read_bytes()
    facts = {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}

    def edit(manifest: dict) -> None:
        for file in manifest["files"]:
            if file["name"] == path.name:
                file.update(facts)

    edit_manifest(result, edit)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda table: table.drop_columns("score"), "its columns differ from the manifest's metadata"),
        (lambda table: table.drop_columns("tag"), "its columns differ from those of part-"),
        (lambda table: table.replace_schema_metadata({}), "its beamlabel.plan_id is None"),
        (
            lambda table: table.replace_schema_metadata(
                {**table.schema.metadata, b"beamlabel.engine": b"abacus"}
            ),
            "its beamlabel.engine is 'abacus', the manifest says 'litert'",
        ),
        (
            lambda table: table.set_column(
                table.schema.get_field_index("module_fingerprint"),
                table.schema.field("module_fingerprint"),
                pa.array(["0" * 64] * len(table)),
            ),
            "its column module_fingerprint differs from the manifest in some rows",
        ),
    ],
)
def test_a_shard_of_another_run_is_seen_although_its_hash_fits(parquet, change, message):
    rewritten(parquet, change)
    assert message in "\n".join(verify(str(parquet)).problems)


def test_hidden_files_are_not_part_of_the_result(parquet):
    (parquet / "_report.html").write_text("<html>")
    (parquet / ".DS_Store").write_text("")
    (parquet / "_failures" / "_notes.txt").write_text("")
    assert verify(str(parquet)).problems == ()


def test_directories_without_a_result(tmp_path):
    done = command("verify", tmp_path / "nowhere")
    assert done.returncode == 2
    assert "not a result of beamlabel" in done.stderr
    with pytest.raises(UsageError, match="no _MANIFEST"):
        verify(str(tmp_path))


def test_a_run_that_is_not_published_is_told_apart(tmp_path, inputs, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr("beamlabel.pipeline.output.publish.publish", lambda output, staging: sys.exit("gone"))
        with pytest.raises(SystemExit):
            label(tmp_path / "out", *inputs)
    with pytest.raises(UsageError, match="beamlabel publish"):
        verify(str(tmp_path / "out"))
    next(tmp_path.glob("_beamlabel-*/staging/*/commit.json")).unlink()
    with pytest.raises(UsageError, match="started but not finished"):
        verify(str(tmp_path / "out"))


@pytest.mark.parametrize("compression", ["none", "gzip"])
def test_records_are_read_as_they_were_written_and_damage_is_named(tmp_path, compression):
    records = [b"one", b"", b"three" * 1000]
    path = tmp_path / "records"
    with path.open("wb") as file:
        write_records(file, records, compression=compression)
    with path.open("rb") as file:
        assert list(read_records(file)) == records
    whole = path.read_bytes()
    for end in range(1, len(whole), 7 if compression == "gzip" else 301):
        if compression == "none" and end in (19, 35):  # between records: only their number reveals it
            continue
        path.write_bytes(whole[:end])
        with path.open("rb") as file, pytest.raises(ValueError, match="record"):
            list(read_records(file))
    for place in range(0, 5000, 499) if compression == "none" else ():
        path.write_bytes(whole)
        flip(path, place)
        with path.open("rb") as file, pytest.raises(ValueError, match="record"):
            list(read_records(file))
