"""A machine without the libraries of S3, Azure and HDFS: an error before the run names option and extra."""

import json
import subprocess
import sys

import pytest

from support.jobs import TINY, photos, uri_list
from support.paths import ROOT

BLOCKED = """
import sys
class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("boto3", "botocore", "hdfs") or name.startswith("azure"):
            raise ModuleNotFoundError(name + " is not on this machine")
sys.meta_path.insert(0, Blocked())
"""
COMMAND = "from beamlabel.pipeline.__main__ import console; console()"
# Many cases in one process, since each process starts with a second of imports.
MANY = """
import json
from beamlabel.pipeline.errors import UsageError
from beamlabel.pipeline.options.parser import parse
from beamlabel.transforms import storage
from beamlabel.transforms.loading.fetch import FetchOptions, fetch
from beamlabel.transforms.records import ImageError

said = []
for words in json.loads(sys.argv[1]):
    try:
        parse(words)
        said.append("")
    except UsageError as error:
        said.append(str(error))
for uri in json.loads(sys.argv[2]):
    for call in (storage.stat, storage.read_bytes, lambda uri: list(storage.match(uri + "*")),
                 lambda uri: storage.write_bytes(uri, b"x"), lambda uri: storage.create_if_absent(uri, b"x")):
        try:
            call(uri)
            said.append("")
        except ValueError as error:
            said.append(str(error))
    try:
        fetch(uri, FetchOptions())
        said.append("")
    except ImageError as error:
        said.append(f"{error.reason.value} {error.detail}")
print(json.dumps(said))
"""
HINTS = {"s3": "'.[aws]'", "azfs": "'.[azure]'", "hdfs": "'apache-beam[hadoop]'"}
OPTIONS = ("--input", "--output", "--module", "--labels", "--skip_labeled", "--base_dir")


def without_them(code: str, *arguments: object) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-c", BLOCKED + code, *map(str, arguments)],
        capture_output=True, text=True, timeout=120, cwd=ROOT, check=False,
    )  # fmt: skip


def test_every_option_and_every_call_names_the_extra() -> None:
    good = {"--input": "list.txt", "--output": "out", "--module": "demo"}
    lines, expected = [], []
    for kind, hint in HINTS.items():
        for option in OPTIONS:
            path = (
                f"{kind.upper()}://account/container/x"
                if option == "--base_dir"
                else f"{kind}://a/container/x"
            )
            lines.append([word for pair in {**good, option: path}.items() for word in pair])
            expected.append((option, path, hint))
        path = f"{kind}://a/container/y"
        lines.append(["--retry_failures", path, "--output", "out", "--module", "demo"])
        expected.append(("--retry_failures", path, hint))
    uris = [f"{kind}://account/container/a.jpg" for kind in HINTS]
    done = without_them(MANY, json.dumps(lines), json.dumps(uris))
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    for line, (option, path, hint) in zip(said, expected, strict=False):
        assert line.startswith(f"{option} {path!r}: "), line
        assert f"pip install {hint}" in line
    calls = said[len(expected) :]
    assert len(calls) == 6 * len(uris)
    for number, hint in enumerate(HINTS.values()):
        assert all(hint in line for line in calls[6 * number : 6 * number + 6]), calls
        assert calls[6 * number + 5].startswith("unsupported_scheme ")


def test_a_run_and_a_command(tmp_path) -> None:
    done = without_them(
        COMMAND, "--input", "s3://bucket/list.txt", "--module", TINY, "--output", tmp_path / "out"
    )
    assert done.returncode == 2
    assert "--input 's3://bucket/list.txt'" in done.stderr
    assert "pip install '.[aws]'" in done.stderr
    assert "apache-beam[aws]" in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("command", ["verify", "publish", "report"])
def test_a_command_names_the_extra(command: str) -> None:
    done = without_them(COMMAND, command, "s3://bucket/labels")
    assert done.returncode == 2, done.stderr
    assert "pip install '.[aws]'" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_reference_in_a_list_is_a_failure(tmp_path) -> None:
    uris = uri_list(
        tmp_path / "list.txt", [*photos(tmp_path / "photos", 3), "s3://bucket/a.jpg", "azfs://acc/con/a.jpg"]
    )
    done = without_them(
        COMMAND, "--input", uris, "--module", TINY, "--output", tmp_path / "out", "--max_error_rate", 1
    )
    assert done.returncode == 0, done.stderr
    found = [json.loads(line) for path in (tmp_path / "out" / "_failures").iterdir() for line in path.open()]
    assert {failure["reason"] for failure in found} == {"unsupported_scheme"}
    assert [".[aws]" in found[0]["detail"], ".[azure]" in found[1]["detail"]] == [True, True]
