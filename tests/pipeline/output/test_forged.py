"""Forged files in an output's directory never make beamlabel move, read or delete files outside it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from beamlabel.pipeline.commands.publish import publish_committed
from beamlabel.pipeline.commands.report import make_report
from beamlabel.pipeline.current.outputs import find_outputs
from beamlabel.pipeline.earlier.outputs import earlier_outputs
from beamlabel.pipeline.errors import UsageError
from beamlabel.pipeline.evaluate.result import read_result
from beamlabel.pipeline.job.preflight import check_output
from beamlabel.pipeline.job.retry_failures import failed_references, inputs_to_retry
from beamlabel.pipeline.options.job_options import InputOptions
from beamlabel.pipeline.output import staging
from beamlabel.pipeline.output.publish import publish
from beamlabel.pipeline.output.verify import verify
from beamlabel.transforms.storage.inside import OutsideError
from support.committed import Directory, commit_run
from support.damage import damaged
from support.jobs import command, label, photos, uri_list

RUN = "20260101T000000Z-abcdef"
VICTIM = "../victim/precious.txt"
NAMES = [
    VICTIM, "shards/../../../../victim/precious.txt", "/victim/precious.txt", "file:///victim/precious.txt",
    "shards\\..\\victim", "shards/%2e%2e/victim", "shards/a\0b", "shards/a\nb", "", ".", "shards//a", 7, None,
    "_MANIFEST.json", "job.json", "shards/00000-000000000000-0000000000000000.parquet/../../job.json",
    "shards/00000-000000000001-0000000000000000.parquet", "failures/00000-000000000000-0000000000000000.parquet",
]  # fmt: skip


@pytest.fixture
def place(tmp_path: Path) -> Directory:
    directory = Directory(tmp_path)
    directory.put("victim/precious.txt", b"theirs")
    directory.put("out/mine.txt", b"mine")
    return directory


@pytest.fixture
def uris(tmp_path: Path) -> Path:
    return uri_list(tmp_path / "list.txt", photos(tmp_path / "photos", 2))


def forge(place: Directory, name: str, change: Any) -> Path:
    """Commits a run and changes one of its JSON files; returns its staging directory."""
    staged = Path(commit_run(place, 2))
    content = json.loads((staged / name).read_text())
    (staged / name).write_text(json.dumps(change(content) or content))
    return staged


def assert_refused(place: Directory) -> None:
    before = place.content()
    with pytest.raises(UsageError, match=r"othing was|was not used"):
        publish_committed(place.uri("out"))
    assert place.content() == before


def test_what_is_not_forged_is_published(place: Directory) -> None:
    commit_run(place, 2)
    assert publish_committed(place.uri("out")) == 0
    assert (place.path / "out" / f"part-{RUN}-00001.parquet").read_bytes() == b"1"


@pytest.mark.parametrize("name", NAMES)
def test_a_commit_that_names_other_files_is_not_published(place: Directory, name: object) -> None:
    forge(place, "commit.json", lambda commit: commit["records"][0]["files"][0].update(name=name))
    assert_refused(place)


@pytest.mark.parametrize("name", ["commit.json", "job.json"])
def test_a_value_of_another_type_is_refused_or_means_nothing(place: Directory, name: str) -> None:
    staged = Path(commit_run(place, 1))
    content = json.loads((staged / name).read_text())
    staging.delete_run(str(staged))
    refused = 0
    for change, value in damaged(content, (None, -1, "x", [7], {"x": 7}, float("inf"))):
        (Path(commit_run(place, 1)) / name).write_text(json.dumps(value))
        try:
            publish_committed(place.uri("out"))
        except UsageError as error:
            assert str(staged) in str(error), change
            refused += 1
        assert (place.path / "victim" / "precious.txt").read_bytes() == b"theirs", change
        shutil.rmtree(place.path / "out")
    assert refused > 100


@pytest.mark.parametrize("content", [b"[" * 200_000, b"\xff", b"", b"7", b'"x"', b"{}", b"NaN", b"1" * 5000])
@pytest.mark.parametrize("name", ["commit.json", "job.json", "publish.json"])
def test_foreign_json_is_refused(place: Directory, name: str, content: bytes) -> None:
    (Path(commit_run(place, 1)) / name).write_bytes(content)
    assert_refused(place)


@pytest.mark.parametrize("content", [b"2", b"", b"11"])
def test_other_bytes_than_were_staged_are_not_published(place: Directory, content: bytes) -> None:
    staged = Path(commit_run(place, 2))
    sorted((staged / "shards").iterdir())[1].write_bytes(content)
    assert_refused(place)


def test_files_of_another_size_are_not_published_in_a_bucket(gcs: Any) -> None:
    staged = commit_run(gcs, 3).removeprefix(f"{gcs.url}/")
    gcs.put(gcs.list(f"{staged}/shards/")[1], b"11")
    before = gcs.list("out/")
    with pytest.raises(UsageError, match="differs from its entry in the commit"):
        publish_committed(gcs.uri("out"))
    assert gcs.list("out/") == before


def record(**changes: Any) -> Any:
    return lambda commit: commit["records"][0].update(changes)


def file(**changes: Any) -> Any:
    return lambda commit: commit["records"][0]["files"][0].update(changes)


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("commit.json", lambda commit: commit.update(format="theirs")),
        ("commit.json", lambda commit: commit.pop("format") and None),
        ("commit.json", lambda commit: [commit]),
        ("commit.json", lambda commit: commit.update(records=[{"unit_id": "1"}])),
        ("commit.json", lambda commit: commit.update(records=7)),
        ("commit.json", lambda commit: commit.update(plan_id="fedcba9876543210")),
        ("commit.json", lambda commit: commit["records"].append(commit["records"][0])),
        ("commit.json", lambda commit: commit.update(deleted=[{**commit["records"][0]["files"][0], "name": VICTIM}])),
        ("commit.json", lambda commit: commit.update(deleted=[commit["records"][0]["files"][0]])),
        ("commit.json", record(unit_id="../../x")),
        ("commit.json", record(unit_id=None)),
        ("commit.json", record(predicted=5)),
        ("commit.json", record(predicted=2, input=2)),
        ("commit.json", record(predicted=0, failed={"not_found": 1})),
        ("commit.json", record(predicted=-1, skipped=2)),
        ("commit.json", file(rows=7)),
        ("commit.json", file(sha256="0" * 64)),
        ("job.json", lambda job: job.update(min_input="7")),
        ("job.json", lambda job: job.update(max_error_rate=None)),
        ("job.json", lambda job: job.update(started_at=1e300)),
        ("job.json", lambda job: job["manifest"].update(options=7)),
        ("commit.json", file(kind="failures")),
        ("commit.json", file(kind="summary")),
        ("commit.json", file(kind="../victim")),
        ("commit.json", file(bytes=10**6)),
        ("job.json", lambda job: job["manifest"].update(plan_id="fedcba9876543210")),
        ("job.json", lambda job: job.update(run_id="../../x") or job["manifest"].update(run_id="../../x")),
        ("job.json", lambda job: job.update(run_id="20260101T000000Z-000000")),
        ("job.json", lambda job: job.update(manifest=[])),
    ],
)  # fmt: skip
def test_a_forged_commit_is_not_published(place: Directory, name: str, change: Any) -> None:
    forge(place, name, change)
    assert_refused(place)


@pytest.mark.parametrize(
    "decided",
    [
        {"moves": {VICTIM: "part-1-00000.parquet"}, "deletes": []},
        {"moves": {"shards/a.parquet": VICTIM}, "deletes": []},
        {"moves": {}, "deletes": [VICTIM]},
        {"moves": {}, "deletes": ["mine.txt"]},
        {"moves": {}, "deletes": ["_MANIFEST.json"]},
        {"moves": {}, "deletes": [f"part-{RUN}-00000.parquet/../../victim/precious.txt"]},
        {"moves": [], "deletes": []},
        [],
    ],
)
def test_a_forged_plan_of_moves_is_not_followed(place: Directory, decided: Any) -> None:
    commit_run(place, 2)
    place.put("out/_beamlabel/staging/0123456789abcdef/publish.json", json.dumps(decided).encode())
    assert_refused(place)


def test_a_lost_commit_with_forged_moves_deletes_nothing(place: Directory) -> None:
    staged = Path(commit_run(place, 2))
    next((staged / "shards").iterdir()).unlink()
    place.put("out/_beamlabel/staging/0123456789abcdef/publish.json",
              json.dumps({"moves": {"a": "mine.txt"}, "deletes": []}).encode())  # fmt: skip
    assert_refused(place)


def test_a_staged_file_that_is_a_link_is_not_published(place: Directory) -> None:
    staged = Path(commit_run(place, 2))
    shard = next((staged / "shards").iterdir())
    shard.unlink()
    shard.symlink_to(place.path / "victim" / "precious.txt")
    with pytest.raises(UsageError):
        publish_committed(place.uri("out"))
    with pytest.raises(OutsideError):
        publish(place.uri("out"), str(staged))
    assert (place.path / "victim" / "precious.txt").read_bytes() == b"theirs"


def manifest_with(output: Path, **changes: Any) -> None:
    path = output / "_MANIFEST.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


@pytest.mark.parametrize("run_id", [None, "x/../../victim", "../victim/precious", ".*"])
@pytest.mark.parametrize("name", [VICTIM, "/victim/precious.txt", "part-x/../../victim/precious-00000.txt"])
def test_a_manifest_that_names_other_files_deletes_nothing(
    place: Directory, uris: Path, run_id: Any, name: str
) -> None:
    output = place.path / "out"
    (output / "mine.txt").unlink()
    assert label(output, "--input", uris).code == 0
    (output / "part-x").mkdir()
    place.put("victim/precious-00000.txt", b"theirs")
    files = json.loads((output / "_MANIFEST.json").read_text())["files"]
    manifest_with(
        output, files=[*files, {**files[0], "name": name}], **({"run_id": run_id} if run_id else {})
    )
    before = place.content()
    assert label(output, "--input", uris, "--if_exists", "overwrite", "--top_k", 2).code == 2
    assert place.content() == before


def _readers(output: str) -> dict[str, Callable[[], Any]]:
    """The functions that read a manifest, by command."""

    def retry() -> None:
        inputs_to_retry(InputOptions(), failed_references(output, ()))

    return {
        "verify": lambda: verify(output),
        "retry": retry,
        "skip_labeled": lambda: list(earlier_outputs([output], "/nowhere").files("failures")),
        "compact": lambda: [one.time for one in find_outputs([output], "INPUT")],
        "evaluate": lambda: read_result(output),
        "publish": lambda: publish_committed(output),
        "overwrite": lambda: check_output(output, "overwrite"),
    }


def test_a_value_of_another_type_in_a_manifest_breaks_no_command(place: Directory, uris: Path) -> None:
    output = place.path / "out"
    (output / "mine.txt").unlink()
    uris.write_text(uris.read_text() + "/gone.jpg\n")
    assert label(output, "--input", uris, "--max_error_rate", 1, "--report").code == 0
    path = output / "_MANIFEST.json"
    content = json.loads(path.read_text())
    for name in ("metrics", "versions", "preprocessing", "module"):
        content[name] = {"fingerprint": content["module"]["fingerprint"]}
    read = "input input_format report max_error_rate keep_columns min_failures base_dir uri_column sample max_bytes"
    content["options"] = {name: content["options"][name] for name in read.split()}
    refused = set()
    for number, (change, value) in enumerate(damaged(content, (None, 7, [7]))):
        path.write_text(json.dumps(value))
        readers = _readers(str(output))
        if number % 20 == 0:
            readers["report"] = lambda: make_report(str(output), fetch=True)
        for name, read in readers.items():
            try:
                read()
            except UsageError as error:
                assert str(output) in str(error), change
                refused.add(name)
    assert refused == {*readers, "report"} - {"verify"}  # which reports the damage as its result


def test_a_retry_reads_nothing_of_other_schemes_than_the_command_line_allows(
    place: Directory, uris: Path
) -> None:
    output = place.path / "out"
    (output / "mine.txt").unlink()
    uris.write_text(uris.read_text() + "/gone.jpg\n")
    assert label(output, "--input", uris, "--max_error_rate", 1).code == 0
    options = {**json.loads((output / "_MANIFEST.json").read_text())["options"], "allowed_schemes": None}
    manifest_with(output, options={**options, "allow_http": True, "allow_private_hosts": True})
    retry = ("--retry_failures", output, "--max_error_rate", 1)
    assert label(place.path / "next", *retry, "--allowed_schemes", "gs,https").code == 2
    assert label(place.path / "next", *retry, "--allowed_schemes", "file").code == 0
    ran = json.loads((place.path / "next" / "_MANIFEST.json").read_text())["options"]
    assert not ran["allow_http"] and not ran["allow_private_hosts"]


def test_no_command_reads_files_that_a_manifest_names_elsewhere(place: Directory, uris: Path) -> None:
    output = place.path / "out"
    (output / "mine.txt").unlink()
    assert label(output, "--input", uris).code == 0
    files = json.loads((output / "_MANIFEST.json").read_text())["files"]
    for kind in ("data", "failures"):
        manifest_with(output, files=[{**files[0], "kind": kind, "name": VICTIM}])
        problems = verify(str(output)).problems
        assert any("is not a file of this directory" in problem for problem in problems)
        assert label(place.path / "next", "--input", uris, "--skip_labeled", output).code == 2
        assert label(place.path / "next", "--retry_failures", output).code == 2
    assert command("report", output).returncode == 2


def test_a_link_in_an_output_is_not_followed(place: Directory, uris: Path) -> None:
    output = place.path / "out"
    (output / "mine.txt").unlink()
    uris.write_text(uris.read_text() + "/gone.jpg\n")
    assert label(output, "--input", uris, "--max_error_rate", 1).code == 0
    (failures,) = (output / "_failures").iterdir()
    victim = place.path / "victim" / failures.name
    victim.write_bytes(b"theirs")
    failures.unlink()
    (output / "_failures").rmdir()
    (output / "_failures").symlink_to(victim.parent)
    assert label(output, "--input", uris, "--if_exists", "overwrite", "--top_k", 2).code == 2
    assert victim.read_bytes() == b"theirs"
    assert any("is a link that leads out" in problem for problem in verify(str(output)).problems)


@pytest.mark.parametrize(
    "name", ["_SUCCESS", "_report.html", "_schema.pbtxt", "_failures", "_unchanged", "_deleted"]
)
@pytest.mark.parametrize("kind", ["link", "other"])
def test_a_target_that_cannot_be_replaced_is_refused_before_the_work(
    place: Directory, old_output: Path, name: str, kind: str
) -> None:
    victim = place.path / "victim"
    path, is_directory = old_output / name, name in ("_failures", "_unchanged", "_deleted")
    if path.exists():
        path.unlink()
    if kind == "link":
        path.symlink_to(victim if is_directory else victim / "precious.txt")
    elif is_directory:
        path.write_bytes(b"theirs")
    else:
        path.mkdir()
    before = place.content()
    with pytest.raises(UsageError):
        check_output(str(old_output), "overwrite")
    assert place.content() == before


@pytest.fixture
def old_output(place: Directory) -> Path:
    """A result without rows."""
    commit_run(place, 1)
    assert publish_committed(place.uri("out")) == 0
    (place.path / "out" / "mine.txt").unlink()
    return place.path / "out"


def test_a_forged_record_is_not_gone_on_with(tmp_path: Path, uris: Path, cut_off: Any) -> None:
    uri_list(uris, photos(tmp_path / "photos", 8))
    assert cut_off(tmp_path / "out", "--input", uris, "--shard_rows", 2).code == 3
    records = sorted(tmp_path.glob("_beamlabel-*/staging/*/units/*.json"))
    assert records
    (tmp_path / "precious.txt").write_text("theirs")
    forged = json.loads(records[0].read_text())
    forged["files"][0] |= {"name": "../../../precious.txt", "bytes": 6}
    records[0].write_text(json.dumps(forged))
    (records[0].parent / "00000-000000000099.json").write_text(
        json.dumps({**forged, "unit_id": "../../evil"})
    )
    job = label(tmp_path / "out", "--input", uris, "--shard_rows", 2, "--if_exists", "resume")
    assert job.code == 0
    assert len(job.rows) == 8
    assert (tmp_path / "precious.txt").read_text() == "theirs"


def test_forged_units_of_a_published_run_are_not_gone_on_with(tmp_path: Path, uris: Path) -> None:
    directory = tmp_path / "photos"
    assert label(tmp_path / "out", "--input", directory).code == 0
    units = tmp_path / "out" / "_beamlabel" / "units.json"
    content = json.loads(units.read_text())
    content["records"][0]["unit_id"] = "../../../../evil"
    units.write_text(json.dumps(content))
    assert label(tmp_path / "out", "--input", directory, "--if_exists", "resume").code == 2
    assert not list(tmp_path.rglob("evil*"))
