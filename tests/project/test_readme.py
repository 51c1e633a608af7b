"""The README is correct: its tables agree with the code, and its commands and programs run."""

import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from beamlabel.pipeline.demo.sample import sample_photos, write_sample_list
from beamlabel.pipeline.options.command_table import COMMANDS
from beamlabel.pipeline.options.parser import parse
from beamlabel.pipeline.options.reference import page
from beamlabel.transforms import storage
from support.gcs_server import Bucket
from support.jobs import TINY, command, label, photos
from support.paths import ROOT
from support.servers import FileServer

README = (ROOT / "README.md").read_text()


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)


def test_the_options_are_those_declared():
    """After a change: python -m beamlabel.pipeline.options.reference --write."""
    assert (ROOT / "docs" / "options.md").read_text() == page()


def test_it_is_short():
    assert len(README.splitlines()) <= 200


def test_the_table_of_commands_has_all():
    rows = re.findall(
        r"^\| \[`beamlabel (\w+) .*`\]\(docs/commands\.md#(\w+)\) \| .* \|$", README, re.MULTILINE
    )
    assert rows == [(name, name) for name in COMMANDS]


def test_the_table_of_extras_has_all():
    rows = re.findall(
        r"^\| ((?:`\w+`(?:, )?)+) \| ", README.partition("| extra |")[2].partition("\n## ")[0], re.MULTILINE
    )
    listed = {name for row in rows for name in re.findall(r"`(\w+)`", row)}
    table = (
        (ROOT / "pyproject.toml")
        .read_text()
        .partition("[project.optional-dependencies]\n")[2]
        .partition("\n[")[0]
    )
    assert listed == set(re.findall(r"^(\w+) = \[$", table, re.MULTILINE))


def test_nothing_promises_an_index():
    """The project is not on PyPI; pip installs it from the checkout or a wheel."""
    pages = [ROOT / "README.md", *(ROOT / "docs").glob("*.md"), *(ROOT / "deploy").rglob("*")]
    promise = re.compile(r"pip install[^\n]*['\"\s]beamlabel(?!-)\b")
    assert [path.name for path in pages if path.is_file() and promise.search(path.read_text())] == []


@pytest.fixture(scope="module")
def sample(tmp_path_factory):
    """A directory in which the job of ``run_local.sh`` has run, and its output."""
    directory = tmp_path_factory.mktemp("readme")
    (directory / "out").mkdir()
    write_sample_list(directory / "out" / "sample.txt")
    words = [
        "--input",
        directory / "out" / "sample.txt",
        "--module",
        "demo",
        "--output",
        directory / "out" / "sample",
    ]
    done = command(*words, "--report", env={**os.environ, "PYTHONPATH": str(ROOT)})
    assert done.returncode == 0, done.stderr
    return directory, done.stderr + done.stdout


def test_the_sample_equals_the_readme(sample):
    """Compares the block of the quickstart line by line; … and times match anything."""
    directory, printed = sample
    command = [
        sys.executable,
        "-m",
        "beamlabel.pipeline.demo.sample",
        "--show",
        str(directory / "out" / "sample"),
    ]
    printed += subprocess.run(command, capture_output=True, text=True, check=True).stdout
    (block,) = blocks("console")
    prompt, *shown = block.strip().splitlines()
    assert prompt == "$ ./run_local.sh"
    lines = [line.rstrip('" ') for line in printed.splitlines()]
    for line in filter(str.strip, shown):
        line = re.sub(r"\d+\.\d s", "… s", line).replace("…/beamlabel/", "…/")
        pattern = re.escape(line).replace("…", ".*")
        matched = [number for number, text in enumerate(lines) if re.fullmatch(pattern, text)]
        assert matched, f"{line!r} is not in\n{printed}"
        lines = lines[matched[0] + 1 :]


def test_the_query_gives_the_result_that_the_readme_shows(sample, monkeypatch):
    import duckdb

    monkeypatch.chdir(sample[0])
    (block,) = blocks("sql")
    query, _, shown = block.partition("\n-- ")
    found = duckdb.connect().execute(query).fetchall()
    rows = ["  ".join(str(value) for value in row) for row in found]
    assert rows == [line.removeprefix("-- ") for line in f"-- {shown}".strip().splitlines()][1:]


def test_the_programs_run(sample, monkeypatch, tmp_path):
    directory, _ = sample
    monkeypatch.chdir(directory)
    (directory / "photos").mkdir()
    (path,) = photos(tmp_path, 1)
    (directory / "photos" / "cat.jpg").write_bytes(path.read_bytes())
    programs = blocks("python")
    assert len(programs) == 3
    names: dict = {"MODULE": TINY, "CACHE": str(tmp_path / "cache")}
    for program in programs:
        program = re.sub(r'^MODULE = ".*"$', "", program, flags=re.MULTILINE)
        exec(compile(program, "README.md", "exec"), names)
    assert len(names["table"]) == len(sample_photos())
    assert len(names["nearest"].fetchall()) == 3


def test_the_command_over_a_bucket_runs(gcs: Bucket, http_server: FileServer, tmp_path, monkeypatch):
    """As in the README, with another bucket name, hub address and runner."""
    # Other tests have also fetched the module.
    monkeypatch.setenv("BEAMLABEL_CACHE", str(tmp_path / "cache"))
    (block,) = [block for block in blocks("bash") if "FlinkRunner" in block]
    words = shlex.split(block.replace("\\\n", " "))
    _, runner = parse(words[1:])
    assert runner == ["--runner", "FlinkRunner", "--flink_master", "localhost:8081"]
    for path in photos(tmp_path, 3):
        gcs.put(f"photos/{path.name}", path.read_bytes())
    http_server.files["/google/imagenet/mobilenet_v2_075_160/classification/1"] = Path(TINY).read_bytes()
    words = [
        word.replace("gs://photos/2026/", gcs.uri("photos/"))
        .replace("gs://labels/2026", gcs.uri("labels"))
        .replace("https://tfhub.dev", http_server.url)
        for word in words[1:]
        if word not in runner
    ]
    options, _ = parse(words)
    job = label(options.output.output, *words[: words.index("--module")], module=options.module.module)
    assert job.code == 0
    assert storage.exists(f"{options.output.output}/_SUCCESS")
    query = [request.query for request in http_server.requests if request.path.endswith("classification/1")]
    assert query == [{"tf-hub-format": ["compressed"]}]


def test_the_nights_run(gcs: Bucket, http_server: FileServer, tmp_path, monkeypatch):
    """Runs twice as in the README, with another bucket name and hub address."""
    monkeypatch.setenv("BEAMLABEL_CACHE", str(tmp_path / "cache"))
    (block,) = [block for block in blocks("bash") if "--skip_labeled" in block]
    http_server.files["/google/imagenet/mobilenet_v2_075_160/classification/1"] = Path(TINY).read_bytes()
    names = {
        "gs://photos/": gcs.uri("photos/"),
        "gs://labels/": gcs.uri("labels/"),
        "https://tfhub.dev": http_server.url,
    }
    words = shlex.split(block.replace("\\\n", " "))[1:]
    for there, here in names.items():
        words = [word.replace(there, here) for word in words]
    paths = photos(tmp_path, 3)
    for night, added in (("2026-11-23", paths[:2]), ("2026-11-24", paths[2:])):
        for path in added:
            gcs.put(f"photos/{path.name}", path.read_bytes())
        done = command(*words, "--run_date", night, env={**os.environ, "PYTHONPATH": str(ROOT)})
        assert done.returncode == 0, done.stderr
        manifest = json.loads(gcs.get(f"labels/dt={night}/_MANIFEST.json"))
        assert manifest["rows"]["predicted"] == len(added)
