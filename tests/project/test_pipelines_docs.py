"""The programs of ``docs/pipelines.md`` give the page's results in memory, on Prism and on Flink."""

from __future__ import annotations

import csv
import json
import os
import re
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Container
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from support import needs
from support.flink_cluster import FlinkCluster
from support.jobs import TINY, photos
from support.paths import ROOT
from support.runner_jobs import PRISM

PAGE = ROOT / "docs" / "pipelines.md"
NAMES = ("bird", "cat", "dog")
CLASSES = [f"class {number}" for number in range(11)]


def programs() -> dict[str, str]:
    """The page's programs by their first output."""
    return {
        re.search(r'(?:WriteToText|WriteLabels|to_csv)\("(\w+)', found)[1]: found
        for found in blocks("python")
    }


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", PAGE.read_text(), re.DOTALL | re.MULTILINE)


def lines(directory: Path, name: str) -> list[str]:
    """The output of a program: the lines of all shards, sorted."""
    files = sorted(directory.glob(f"{name}*-of-*.txt"))
    assert files, sorted(directory.iterdir())
    return sorted(line for file in files for line in file.read_text().splitlines())


def best(directory: Path) -> None:
    (line,) = lines(directory, "best")
    assert re.fullmatch(r"7 \d+ 0\.\d{3}", line)
    assert lines(directory, "failed") == ["8 not_found"]


def labels(directory: Path) -> None:
    table = pq.read_table(sorted((directory / "labels").glob("part-*.parquet")))
    assert table.select(["uri", "customer"]).to_pylist() == [{"uri": "photos/cat.jpg", "customer": 7}]
    assert b"beamlabel.module_fingerprint" in table.schema.metadata
    (failures,) = (directory / "labels" / "_failures").glob("part-*.jsonl")
    assert '"customer": 8' in failures.read_text()


def steps(directory: Path) -> None:
    (line,) = lines(directory, "steps")
    assert re.fullmatch(r"photos/cat\.jpg \d+", line)


def frames(directory: Path) -> None:
    assert [line.split()[0] for line in lines(directory, "frames")] == ["0", "1", "2", "3"]


def counts(directory: Path) -> None:
    # At most seven ticks, in windows of a second with one count each.
    found = Counter(map(int, lines(directory, "counts")))
    assert sum(number * times for number, times in found.items()) in (6, 7) and max(found) <= 2


def classes(directory: Path) -> None:
    found = [line.split(" ", 1) for line in lines(directory, "classes")]
    assert sum(int(number) for number, _ in found) == 2
    names = [name for _, name in found]
    assert len(set(names)) == len(names) and set(names) <= set(CLASSES)
    (failure,) = json_lines(directory, "failures.jsonl")
    assert (failure["uri"], failure["customer"], failure["reason"]) == ("photos/missing.jpg", 8, "not_found")


def table(directory: Path) -> None:
    (row,) = csv.DictReader((directory / "table.csv").open())
    assert (row["uri"], row["customer"], row["width"]) == ("photos/cat.jpg", "7", "48")
    assert 0 < float(row["score"]) < 1
    assert (directory / "reasons.csv").read_text().splitlines()[1:] == ["photos/missing.jpg,8,not_found"]


def json_lines(directory: Path, name: str) -> list[dict]:
    return [
        json.loads(line) for file in directory.glob(f"{name}-*") for line in file.read_text().splitlines()
    ]


def equal(name: str, *expected: str) -> Callable[[Path], None]:
    def check(directory: Path) -> None:
        assert lines(directory, name) == sorted(expected)

    return check


CHECKS: dict[str, Callable[[Path], None]] = {
    "best": best,
    "orders": equal("orders", "1 10.0 1 0", "2 20.0 1 0", "3 30.0 0 1"),
    "customers": equal("customers", "7 2", "8 1"),
    "embedded": equal("embedded", *(f"{name} 64" for name in NAMES)),
    "sizes": equal("sizes", *["48x40"] * 3),
    "labels": labels,
    "classes": classes,
    "wide": equal("wide", "7 2", "8 1"),
    "table": table,
    "steps": steps,
    "frames": frames,
    "counts": counts,
}


# The notebook's program brings its runner. The others run on two runners: in memory, and on one of these; the long
# tests run them on all three.
ON_FLINK = ("labels", "counts")
ON_PRISM = tuple(name for name in CHECKS if name not in (*ON_FLINK, "table"))


def on_any_runner(short: Container[str]) -> list[Any]:
    return [
        pytest.param(name, marks=() if name in short else pytest.mark.long) for name in (*ON_PRISM, *ON_FLINK)
    ]


def furnish(directory: Path) -> None:
    """Creates the inputs of the page's programs."""
    (directory / "photos").mkdir()
    for made, stem in zip(photos(directory / "made", len(NAMES)), NAMES, strict=True):
        shutil.copyfile(made, directory / "photos" / f"{stem}.jpg")
    (directory / "classes.txt").write_text("\n".join(CLASSES))
    (directory / "photos.csv").write_text("path,customer\nphotos/cat.jpg,7\nphotos/missing.jpg,8\n")


def run(name: str, directory: Path, *options: str) -> None:
    """Runs a program in a directory with the page's photographs, and checks its output."""
    furnish(directory)
    program = directory / "program.py"
    program.write_text(re.sub(r'^MODULE = ".*"$', f"MODULE = {str(TINY)!r}", programs()[name], flags=re.M))
    done = subprocess.run(
        [sys.executable, program.name, *options],
        cwd=directory,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-5000:]
    CHECKS[name](directory)


def test_every_program_is_run() -> None:
    assert programs().keys() == CHECKS.keys()


@pytest.mark.parametrize("name", CHECKS)
def test_in_memory(name: str, tmp_path: Path) -> None:
    # For PeriodicImpulse, Beam's default in-memory runner switches to an older one, which cannot run it.
    runner = "--runner=apache_beam.runners.portability.fn_api_runner.FnApiRunner"
    run(name, tmp_path, *([runner] if name == "counts" else []))


def test_beam_yaml(tmp_path: Path) -> None:
    furnish(tmp_path)
    (pipeline,), (command,) = blocks("yaml"), [text for text in blocks("bash") if "apache_beam.yaml" in text]
    (tmp_path / "label.yaml").write_text(re.sub(r'module: ".*"', f"module: {TINY}", pipeline))
    done = subprocess.run(
        ["bash", "-ec", command],
        cwd=tmp_path,
        env={
            **os.environ,
            "PYTHONPATH": str(ROOT),
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        },
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-5000:]
    (row,) = pq.read_table(sorted(tmp_path.glob("labels.parquet*"))).to_pylist()
    assert (row["path"], row["customer"], len(row["class_ids"])) == ("photos/cat.jpg", 7, 3)
    assert [(row["customer"], row["reason"]) for row in json_lines(tmp_path, "failures.json")] == [
        (8, "not_found")
    ]


@pytest.mark.parametrize("name", on_any_runner(ON_PRISM))
def test_on_prism(name: str, tmp_path: Path) -> None:
    if not PRISM.exists():
        needs.lacking("no Prism; tools/setup_prism.sh builds it if Go is installed")
    run(name, tmp_path, "--runner=PrismRunner", f"--prism_location={PRISM}")


@pytest.mark.parametrize("name", on_any_runner(ON_FLINK))
def test_on_flink(name: str, flink_cluster: FlinkCluster, tmp_path: Path) -> None:
    # LOOPBACK, since the programs' paths are relative to their working directory.
    options = ["--runner=PortableRunner", f"--job_endpoint={flink_cluster.job_endpoint}", "--parallelism=1"]
    run(name, tmp_path, *options, "--environment_type=LOOPBACK")
