"""The sdist and its wheel: all of beamlabel under one name, beside a project with the same package names."""

import json
import os
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import zipfile
from dataclasses import dataclass
from pathlib import Path

import pytest

from beamlabel.pipeline import layout
from support.jobs import TINY, FinishedJob, photos, uri_list
from support.paths import ROOT
from support.runner_jobs import same_rows

DATA_FILES = {
    "beamlabel/py.typed",
    "beamlabel/pipeline/report/report.html",
    "beamlabel/pipeline/report/report.css",
    "beamlabel/pipeline/report/report.js",
    "beamlabel/pipeline/report/common.js",
    "beamlabel/pipeline/report/corrections.js",
    "beamlabel/pipeline/report/verdicts.css",
    "beamlabel/pipeline/report/verdicts.js",
    "beamlabel/pipeline/diff/diff.html",
    "beamlabel/pipeline/diff/diff.css",
    "beamlabel/pipeline/diff/diff.js",
    "beamlabel/pipeline/train/report/training.html",
    "beamlabel/pipeline/train/report/training.css",
    "beamlabel/pipeline/train/report/training.js",
    "beamlabel/pipeline/train/report/plots.js",
    "beamlabel/transforms/beam_yaml/provider.yaml",
    "beamlabel/transforms/module/imagenet_labels.txt",
}
WHERE = """
import json, beamlabel, beamlabel.pipeline.run, beamlabel.transforms.records, pipeline, transforms
modules = beamlabel, beamlabel.pipeline.run, beamlabel.transforms.records, pipeline, transforms
print(json.dumps([module.__file__ for module in modules]))
"""


def succeeded(*command, **options) -> subprocess.CompletedProcess:
    done = subprocess.run(
        [*map(str, command)], capture_output=True, text=True, timeout=300, stdin=subprocess.DEVNULL, **options
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done


@dataclass(frozen=True)
class Built:
    """The sdist, and the wheel built from it alone."""

    sdist: Path
    wheel: Path


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Built:
    directory = tmp_path_factory.mktemp("dist")
    # A copy, so that the build leaves no files in the checkout and packs no stray files.
    source = directory / "source"
    skipped = shutil.ignore_patterns(".*", "__pycache__", "*.egg-info", "build", "dist", "out")
    shutil.copytree(ROOT, source, symlinks=True, ignore=skipped)
    # Without --sdist or --wheel, the wheel is built from the sdist.
    succeeded(sys.executable, "-m", "build", "--no-isolation", "--outdir", directory / "out", source)
    (sdist,), (wheel,) = (directory / "out").glob("*.tar.gz"), (directory / "out").glob("*.whl")
    return Built(sdist, wheel)


def sources() -> set[str]:
    """Every file of the package by its path below ``beamlabel``'s parent."""
    directory = ROOT / "beamlabel"
    found = [*directory.glob("*.*"), *(ROOT / "pipeline").rglob("*.*"), *(ROOT / "transforms").rglob("*.*")]
    names = {str(path.relative_to(ROOT)) for path in found if path.suffix != ".pyc"}
    return {name if name.startswith("beamlabel/") else f"beamlabel/{name}" for name in names}


def test_the_wheel_holds_beamlabel_and_nothing_else(built):
    with zipfile.ZipFile(built.wheel) as wheel:
        names = {name for name in wheel.namelist() if not name.endswith("/")}
    metadata = {name for name in names if name.partition("/")[0].endswith(".dist-info")}
    assert names - metadata == sources()
    assert names >= DATA_FILES
    with zipfile.ZipFile(built.wheel) as wheel:
        (top_level,) = [name for name in metadata if name.endswith("/top_level.txt")]
        assert wheel.read(top_level).decode().split() == ["beamlabel"]


def test_the_sdist_holds_real_files_and_neither_tests_nor_benchmarks(built):
    with tarfile.open(built.sdist) as sdist:
        members = {member.name.partition("/")[2]: member for member in sdist.getmembers()}
    assert all(member.isfile() or member.isdir() for member in members.values())
    assert {
        name for name, member in members.items() if member.isfile() and name.startswith("beamlabel/")
    } == (sources())
    assert {name.partition("/")[0] for name in members} & {
        "pipeline",
        "transforms",
        "tests",
        "benchmarks",
    } == set()


@dataclass(frozen=True)
class Project:
    """A user's project with packages named like beamlabel's, and a Python with the wheel installed."""

    directory: Path
    python: Path

    def run(self, *words: object) -> subprocess.CompletedProcess:
        """Runs Python in the project's directory."""
        return self.command("python", *words)

    def command(self, name: str, *words: object) -> subprocess.CompletedProcess:
        """Runs an installed command there."""
        env = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
        return succeeded(self.python.with_name(name), *words, cwd=self.directory, env=env)


@pytest.fixture(scope="module")
def project(built: Built, tmp_path_factory: pytest.TempPathFactory) -> Project:
    directory = tmp_path_factory.mktemp("project")
    for name in ("pipeline", "transforms"):
        package = directory / name
        package.mkdir()
        (package / "__init__.py").write_text(f'OWNER = "somebody else\'s {name}"\n')
    environment = tmp_path_factory.mktemp("environment")
    succeeded(sys.executable, "-m", "venv", "--without-pip", environment)
    python = environment / "bin" / "python"
    pip = [sys.executable, "-m", "pip", "--python", python, "install", "--quiet", "--no-deps", "--no-index"]
    succeeded(*pip, built.wheel)
    # The requirements come from the tests' environment. Python does not read .pth files in directories that a .pth file
    # adds, so the editable install there stays hidden.
    (site,) = environment.glob("lib/python*/site-packages")
    (site / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return Project(directory, python)


def test_each_name_is_its_owners(project):
    beamlabel, run, records, pipeline, transforms = map(Path, json.loads(project.run("-c", WHERE).stdout))
    for module in (beamlabel, run, records):
        assert module.is_relative_to(project.python.parents[1]), module
    assert pipeline.parent == project.directory / "pipeline"
    assert transforms.parent == project.directory / "transforms"


def test_it_labels_beside_them_in_process_and_in_worker_processes(project, tmp_path):
    uris = uri_list(tmp_path / "list.txt", photos(tmp_path / "photos", 6))
    arguments = ("-m", "beamlabel", "--input", uris, "--module", TINY, "--shard_rows", 2)
    workers = ("--direct_running_mode", "multi_processing", "--direct_num_workers", "2")
    here, there = tmp_path / "in process", tmp_path / "in workers"
    project.run(*arguments, "--output", here, "--report")
    project.run(*arguments, "--output", there, *workers)
    assert (here / layout.REPORT).stat().st_size > 0
    for output in (here, there):
        assert FinishedJob(0, output).manifest["rows"] == {
            "input": 6,
            "predicted": 6,
            "failed": 0,
            "skipped": 0,
        }
    same_rows(FinishedJob(0, there).table, FinishedJob(0, here).table)


def test_the_command_is_installed(project):
    assert "--module" in project.command("beamlabel", "--help").stdout
