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
from collections.abc import Callable
from pathlib import Path

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


def lines(folder: Path, name: str) -> list[str]:
    """The output of a program: the lines of all shards, sorted."""
    files = sorted(folder.glob(f"{name}*-of-*.txt"))
    assert files, sorted(folder.iterdir())
    return sorted(line for file in files for line in file.read_text().splitlines())


def best(folder: Path) -> None:
    (line,) = lines(folder, "best")
    assert re.fullmatch(r"7 \d+ 0\.\d{3}", line)
    assert lines(folder, "failed") == ["8 not_found"]


def labels(folder: Path) -> None:
    table = pq.read_table(sorted((folder / "labels").glob("part-*.parquet")))
    assert table.select(["uri", "customer"]).to_pylist() == [{"uri": "photos/cat.jpg", "customer": 7}]
    assert b"beamlabel.module_fingerprint" in table.schema.metadata
    (failures,) = (folder / "labels" / "_failures").glob("part-*.jsonl")
    assert '"customer": 8' in failures.read_text()


def steps(folder: Path) -> None:
    (line,) = lines(folder, "steps")
    assert re.fullmatch(r"photos/cat\.jpg \d+", line)


def frames(folder: Path) -> None:
    assert [line.split()[0] for line in lines(folder, "frames")] == ["0", "1", "2", "3"]


def counts(folder: Path) -> None:
    # At most seven ticks, in windows of a second with one count each.
    found = Counter(map(int, lines(folder, "counts")))
    assert sum(number * times for number, times in found.items()) in (6, 7) and max(found) <= 2


def classes(folder: Path) -> None:
    found = [line.split(" ", 1) for line in lines(folder, "classes")]
    assert sum(int(number) for number, _ in found) == 2
    names = [name for _, name in found]
    assert len(set(names)) == len(names) and set(names) <= set(CLASSES)
    (failure,) = json_lines(folder, "failures.jsonl")
    assert (failure["uri"], failure["customer"], failure["reason"]) == ("photos/missing.jpg", 8, "not_found")


def table(folder: Path) -> None:
    (row,) = csv.DictReader((folder / "table.csv").open())
    assert (row["uri"], row["customer"], row["width"]) == ("photos/cat.jpg", "7", "48")
    assert 0 < float(row["score"]) < 1
    assert (folder / "reasons.csv").read_text().splitlines()[1:] == ["photos/missing.jpg,8,not_found"]


def json_lines(folder: Path, name: str) -> list[dict]:
    return [json.loads(line) for file in folder.glob(f"{name}-*") for line in file.read_text().splitlines()]


def equal(name: str, *expected: str) -> Callable[[Path], None]:
    def check(folder: Path) -> None:
        assert lines(folder, name) == sorted(expected)

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


# The notebook's program brings its runner.
ON_ANY_RUNNER = [name for name in CHECKS if name != "table"]


def furnish(folder: Path) -> None:
    """Creates the inputs of the page's programs."""
    (folder / "photos").mkdir()
    for made, stem in zip(photos(folder / "made", len(NAMES)), NAMES, strict=True):
        shutil.copyfile(made, folder / "photos" / f"{stem}.jpg")
    (folder / "classes.txt").write_text("\n".join(CLASSES))
    (folder / "photos.csv").write_text("path,customer\nphotos/cat.jpg,7\nphotos/missing.jpg,8\n")


def run(name: str, folder: Path, *options: str) -> None:
    """Runs a program in a directory with the page's photographs, and checks its output."""
    furnish(folder)
    program = folder / "program.py"
    program.write_text(re.sub(r'^MODULE = ".*"$', f"MODULE = {str(TINY)!r}", programs()[name], flags=re.M))
    done = subprocess.run(
        [sys.executable, program.name, *options],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-5000:]
    CHECKS[name](folder)


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


@pytest.mark.parametrize("name", ON_ANY_RUNNER)
def test_on_prism(name: str, tmp_path: Path) -> None:
    if not PRISM.exists():
        needs.lacking("no Prism; tools/setup_prism.sh builds it if Go is installed")
    run(name, tmp_path, "--runner=PrismRunner", f"--prism_location={PRISM}")


@pytest.mark.parametrize("name", ON_ANY_RUNNER)
def test_on_flink(name: str, flink_cluster: FlinkCluster, tmp_path: Path) -> None:
    # LOOPBACK, since the programs' paths are relative to their working directory.
    options = ["--runner=PortableRunner", f"--job_endpoint={flink_cluster.job_endpoint}", "--parallelism=1"]
    run(name, tmp_path, *options, "--environment_type=LOOPBACK")
