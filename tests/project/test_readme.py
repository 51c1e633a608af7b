"""The README is true: its tables are the code's, and its commands and programs run."""

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from beamlabel.pipeline.demo.sample import sample_photos, write_sample_list
from beamlabel.pipeline.options.command_table import COMMANDS
from beamlabel.pipeline.options.parser import parse
from beamlabel.pipeline.options.reference import page, readme
from beamlabel.transforms import storage
from beamlabel.transforms.records import Reason
from support.gcs_server import Bucket
from support.jobs import TINY, label, photos
from support.paths import ROOT
from support.servers import FileServer

README = (ROOT / "README.md").read_text()


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)


def test_the_options_are_those_declared():
    """After a change: python -m beamlabel.pipeline.options.reference --write."""
    assert readme(README) == README
    assert (ROOT / "docs" / "options.md").read_text() == page()


def test_the_table_of_commands_is_the_programs():
    rows = re.findall(
        r"^\| \[`beamlabel (\w+) .*`\]\(docs/commands\.md#(\w+)\) \| (.*) \|$", README, re.MULTILINE
    )
    assert rows == [(name, name, command.help) for name, command in COMMANDS.items()]


def test_every_reason_is_explained():
    explained = re.findall(r"^\| `([a-z_]+)` \| ", README.split("## Failures")[1], re.MULTILINE)
    assert explained == [reason.value for reason in Reason]


@pytest.fixture(scope="module")
def sample(tmp_path_factory):
    """A folder in which ``run_local.sh`` has run."""
    folder = tmp_path_factory.mktemp("readme")
    (folder / "out").mkdir()
    write_sample_list(folder / "out" / "sample.txt")
    job = label(folder / "out" / "sample", "--input", folder / "out" / "sample.txt", module="demo")
    assert job.code == 0
    return folder


def test_the_sample_is_what_the_readme_shows(sample):
    command = [
        sys.executable,
        "-m",
        "beamlabel.pipeline.demo.sample",
        "--show",
        str(sample / "out" / "sample"),
    ]
    shown = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert shown.strip() in README
    assert len(shown.splitlines()) == 1 + len(sample_photos())


def test_the_query_gives_the_result_that_the_readme_shows(sample, monkeypatch):
    import duckdb

    monkeypatch.chdir(sample)
    (block,) = blocks("sql")
    query, _, shown = block.partition("\n-- ")
    found = duckdb.connect().execute(query).fetchall()
    rows = ["  ".join(str(value) for value in row) for row in found]
    assert rows == [line.removeprefix("-- ") for line in f"-- {shown}".strip().splitlines()][1:]


def test_the_programs_run(sample, monkeypatch, tmp_path):
    monkeypatch.chdir(sample)
    (sample / "photos").mkdir()
    for name, path in zip(("cat.jpg", "dog.jpg"), photos(tmp_path, 2), strict=True):
        (sample / "photos" / name).write_bytes(path.read_bytes())
    programs = blocks("python")
    assert len(programs) == 3
    names: dict = {"MODULE": TINY, "CACHE": str(tmp_path / "cache")}
    for program in programs:
        program = re.sub(r'^MODULE = ".*"$', "", program, flags=re.MULTILINE)
        exec(compile(program, "README.md", "exec"), names)
    assert len(names["table"]) == len(sample_photos())
    assert len(names["nearest"].fetchall()) == 3


def test_the_command_over_a_bucket_runs(gcs: Bucket, http_server: FileServer, tmp_path, monkeypatch):
    """As the README has it, but for the bucket's name, the hub's address and the runner."""
    # Other tests have fetched the module, too.
    monkeypatch.setenv("BEAMLABEL_CACHE", str(tmp_path / "cache"))
    (command,) = [block for block in blocks("bash") if block.startswith("beamlabel")]
    words = shlex.split(command.replace("\\\n", " "))
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
