"""The comparison benchmark: its photographs, its measurements and its report; no test measures time."""

from __future__ import annotations

import importlib
import importlib.util
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from support.jobs import TINY
from support.paths import ROOT

BENCHMARKS = ROOT / "benchmarks"
sys.path.append(str(BENCHMARKS))  # as for a script there; at the end, so that it hides no other module
answers, compare, contenders, environments, measure, photos, report = map(
    importlib.import_module,
    ("answers", "compare", "contenders", "environments", "measure", "photos", "report"),
)

needs_sample = pytest.mark.skipif(
    not all(importlib.util.find_spec(package) for package in ("skimage", "matplotlib", "sklearn")),
    reason="the extra `demo` is not installed",
)


@needs_sample
def test_photographs_are_distinct_and_always_the_same(tmp_path: Path) -> None:
    first = photos.photographs(tmp_path / "a", 24)
    again = photos.photographs(tmp_path / "b", 24)
    contents = [path.read_bytes() for path in first]
    assert len(set(contents)) == 24
    assert contents == [path.read_bytes() for path in again]
    other = photos.photographs(tmp_path / "a", 2, seed=1)
    assert not {path.read_bytes() for path in other} & set(contents)
    sizes = {Image.open(path).size for path in first}
    assert len(sizes) > 1
    assert sizes <= set(photos.SIZES)
    assert not list((tmp_path / "a").rglob("*.part"))


@needs_sample
def test_photographs_are_made_once(tmp_path: Path) -> None:
    made = {path: path.stat().st_mtime_ns for path in photos.photographs(tmp_path, 3)}
    more = photos.photographs(tmp_path, 5)
    assert more[:3] == list(made)
    assert made == {path: path.stat().st_mtime_ns for path in more[:3]}


def test_smaps_rollup_is_parsed() -> None:
    text = (
        "55d0-7ffe ---p 00000000 00:00 0    [rollup]\nRss:    2048 kB\nPss:    1024 kB\nPss_Dirty:  12 kB\n"
    )
    assert measure.parse_smaps_rollup(text) == (1024 * 1024, 2048 * 1024)


def test_proc_stat_is_parsed() -> None:
    tick = os.sysconf("SC_CLK_TCK")
    busy, steal = measure.parse_proc_stat("cpu  100 1 20 9999 50 3 4 70 0 0\ncpu0 1 1 1 1 1 1 1 1 0 0\n")
    assert busy == pytest.approx(128 / tick)
    assert steal == pytest.approx(70 / tick)


def test_java_s_version_is_parsed() -> None:
    assert environments.parse_java_version('openjdk version "17.0.15" 2025-04-15\nOpenJDK …') == "17.0.15"


HUNGRY = "x = bytearray(b'x') * 100_000_000; print('ready', flush=True); input()"


def test_the_sampler_sees_children_and_theirs() -> None:
    """A shell that runs a Python process with 100 MB."""
    sampler = measure.Sampler()
    command = ["sh", "-c", '"$0" -c "$1"; true', sys.executable, HUNGRY]
    child = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert child.stdout is not None
    assert child.stdout.readline() == "ready\n"
    sampler.sample()
    assert len(sampler.current()) == 2
    child.communicate("\n")
    sampler.sample()
    assert 100e6 < sampler.pss <= sampler.rss < 200e6
    assert not sampler.current()


def test_pages_that_processes_share_are_counted_once(tmp_path: Path) -> None:
    program = (
        "import os, time; x = bytearray(b'x') * 200_000_000\n"
        "children = [os.fork() for _ in range(2)]\n"
        "time.sleep(1.5) if 0 in children else [os.waitpid(pid, 0) for pid in children]"
    )
    log = tmp_path / "log"
    cost = measure.measure(
        [sys.executable, "-c", program], environment=os.environ, directory=tmp_path, log=log
    )
    assert cost.code == 0
    assert 190 < cost.pss_mb < 300
    assert cost.rss_mb > 2 * cost.pss_mb


def test_processes_that_a_command_leaves_are_ended(tmp_path: Path) -> None:
    command = ["sh", "-c", "sleep 1000 & echo $! >pid; echo oops >&2; exit 3"]
    grace, measure._GRACE = measure._GRACE, 0.2
    try:
        cost = measure.measure(command, environment=os.environ, directory=tmp_path, log=tmp_path / "log")
    finally:
        measure._GRACE = grace
    assert (cost.code, cost.stderr) == (3, "oops\n")
    assert not Path("/proc", (tmp_path / "pid").read_text().strip()).exists()


def test_cpu_time_of_grandchildren_counts(tmp_path: Path) -> None:
    burn = "import time\nwhile time.process_time() < 0.5: pass"
    command = ["sh", "-c", '"$0" -c "$1"; true', sys.executable, burn]
    cost = measure.measure(command, environment=os.environ, directory=tmp_path, log=tmp_path / "log")
    assert 0.5 <= cost.cpu_seconds < 5


def test_a_command_that_takes_too_long_is_killed(tmp_path: Path) -> None:
    begin = time.monotonic()
    cost = measure.measure(
        ["sleep", "1000"], environment=os.environ, directory=tmp_path, log=tmp_path / "log", timeout=0.1
    )
    assert cost.code < 0
    assert time.monotonic() - begin < 100


def write_answers(directory: Path, rows: list[tuple[str, int, list[float]]]) -> None:
    directory.mkdir()
    uris, best, embeddings = zip(*rows, strict=True)
    ids = pa.array([[one, 0] for one in best], pa.list_(pa.int32(), 2))
    vectors = pa.array(embeddings, pa.list_(pa.float32(), 2))
    table = pa.table({"uri": list(uris), "class_ids": ids, "embedding": vectors})
    pq.write_table(table.slice(0, 1), directory / "part-0.parquet")
    pq.write_table(table.slice(1), directory / "part-1.parquet")
    (directory / "_MANIFEST.json").write_text("{}")


def test_answers_are_matched_by_uri(tmp_path: Path) -> None:
    write_answers(tmp_path / "a", [("x", 1, [1, 0]), ("y", 2, [0, 1]), ("z", 3, [1, 1])])
    write_answers(tmp_path / "b", [("z", 3, [2, 2]), ("x", 7, [1, 0]), ("y", 2, [0, 3])])
    reference = answers.read_answers(tmp_path / "a")
    agreement = answers.compare_answers(reference, answers.read_answers(tmp_path / "b"))
    assert agreement.top_1 == pytest.approx(2 / 3)
    assert agreement.cosine == pytest.approx(1.0)
    write_answers(tmp_path / "c", [("x", 1, [1, 0]), ("x", 2, [0, 1]), ("z", 3, [1, 1])])
    with pytest.raises(ValueError, match="not the same images"):
        answers.compare_answers(reference, answers.read_answers(tmp_path / "c"))


def test_a_reason_is_the_last_message() -> None:
    said = "Loading\nbeamlabel: error: --engine: no such option\nTry 'beamlabel --help'.\n\n"
    assert compare.last_words(said) == "beamlabel: error: --engine: no such option"
    assert compare.last_words("") == ""


def test_an_environment_that_cannot_be_made_gives_the_reason(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("JAVA_HOME", str(tmp_path))
    with pytest.raises(environments.MissingError, match="needs Java"):
        environments.python_of("spark", tmp_path)
    monkeypatch.setitem(environments._MODULES, "litert", ("no_such_module",))
    with pytest.raises(environments.MissingError, match="no module no_such_module"):
        environments.check_modules(["litert"])


def test_every_contender_has_the_files_that_it_names() -> None:
    names = [one.name for one in contenders.CONTENDERS]
    assert len(set(names)) == len(names)
    for one in contenders.CONTENDERS:
        assert one.script is None or (BENCHMARKS / "peers" / one.script).is_file()
        assert (
            one.environment == "own" or (BENCHMARKS / f"peers/requirements-{one.environment}.txt").is_file()
        )


def recorded(seconds: dict[str, list[tuple[float, float]]], missing: dict[str, str]) -> list[dict[str, Any]]:
    """The record of a comparison: two rounds of 1000 and 4000 images."""
    machine = {
        "cpu": "a CPU",
        "units": ["avx2"],
        "cores": 2,
        "memory_gb": 4.0,
        "python": "3.11.7",
        "system": "Linux",
    }
    module = {
        "name": "a module",
        "height": 160,
        "width": 160,
        "features": "f",
        "dimensions": 1280,
        "classes": 1001,
    }
    records: list[dict[str, Any]] = [
        {
            "kind": "setup", "date": "2026-01-02", "command": "python benchmarks/compare.py --module M", "rounds": 2,
            "counts": [1000, 4000], "module": module, "photographs": {"made": True, "mean_bytes": 98_000},
            "machine": machine,
        },
        *(
            {"kind": "contender", "name": n, "title": f"T {n}", "missing": missing.get(n), "versions": {"numpy": "2"}}
            for n in (*seconds, *missing)
        ),
    ]  # fmt: skip
    for name, rounds in seconds.items():
        for number, pair in enumerate(rounds):
            for count, value in zip((1000, 4000), pair, strict=True):
                facts = {"code": 0, "seconds": value, "pss_mb": 500.0, "rss_mb": 600.0, "cpu_seconds": 9.0}
                facts |= {
                    "busy_seconds": 9.5,
                    "steal_seconds": 0.1,
                    "rows": count,
                    "classes": 18,
                    "problem": None,
                }
                facts |= {"top_1": 0.9975, "cosine": 1.0, "seconds_to_first_label": 2.5}
                facts["computed_by"] = ["litert float32"]
                records.append({"kind": "run", "name": name, "round": number, "count": count, **facts})
    return records


def test_the_report_is_written_from_recorded_results(tmp_path: Path) -> None:
    records = recorded(
        {"handwritten": [(6, 21), (7, 22)], "ours": [(8, 23), (9, 28.75)], "beam": [(30, 80), (30, 80)]},
        {"spark": "Spark needs Java 17 or newer"},
    )
    broken = {**records[-1], "name": "ours", "problem": "it broke", "seconds": 0.1, "round": 2}
    cold = {**records[-1], "kind": "cold_start", "count": 1000, "seconds": 20.0}
    records += [broken, cold, {"kind": "help", "seconds": [0.1, 0.2, 0.9]}]
    results = tmp_path / "results.jsonl"
    results.write_text("".join(json.dumps(record) + "\n" for record in records))
    command = [
        sys.executable,
        BENCHMARKS / "compare.py",
        "--report-only",
        results,
        "--output",
        tmp_path / "docs",
    ]
    subprocess.run(command, check=True, capture_output=True)
    page = (tmp_path / "docs" / "benchmarks.md").read_text()
    lines = page.splitlines()
    assert (
        "| T ours | 8.5 (8.0–9.0) | 25.9 (23.0–28.8) | 176 (152–200) | 500 (500–500) | 600 | 9 | 99.75% |"
        in lines
    )
    assert (
        "| T ours | 0.88 (0.76–1.00) | 1.31 (1.29–1.33) | 1.20 (1.10–1.31) | 1.00 (1.00–1.00) | 2.93 (2.53–3.33) |"
        in lines
    )
    (row,) = [line for line in lines if line.startswith("| T spark ")]
    assert "not run: Spark needs Java 17 or newer" in row
    assert "left out: 1 of 13" in page
    assert "11.5 s more than with a warm cache" in page
    assert "- `--help`: 0.20 s." in lines
    assert "- Seconds to the first labeled image: 2.5 (2.5–2.5)." in lines
    assert "| `handwritten`, `ours`, `beam`, `spark` | numpy 2 |" in lines
    assert "python benchmarks/compare.py --module M" in lines
    assert np.asarray(Image.open(tmp_path / "docs" / "benchmarks.png")).std() > 0  # fmt: skip


def test_what_was_written_by_hand_stays(tmp_path: Path) -> None:
    by_hand = f"{report.BY_HAND}\n## More\n\nBy hand.\n"
    report.write_report(recorded({}, {}), tmp_path)
    page = tmp_path / "benchmarks.md"
    made = page.read_text()
    page.write_text(f"something old\n\n{by_hand}")
    report.write_report(recorded({}, {}), tmp_path)
    assert page.read_text() == f"{made}\n{by_hand}"


def test_a_report_of_nothing_that_ran(tmp_path: Path) -> None:
    report.write_report(recorded({}, {"ours": "a | b"}), tmp_path)
    assert "not run: a / b" in (tmp_path / "benchmarks.md").read_text()


@needs_sample
@pytest.mark.long
def test_the_command_runs(tmp_path: Path) -> None:
    """A real run: the hand-written script and beamlabel, with a few photographs and a small module."""
    pytest.importorskip("tensorflow")
    words = ["--module", TINY, "--counts", "3,12", "--rounds", "1", "--only", "handwritten,ours"]
    words += ["--scratch", str(tmp_path / "scratch"), "--output", str(tmp_path / "docs")]
    subprocess.run([sys.executable, BENCHMARKS / "compare.py", *words], check=True, capture_output=True)
    (results,) = (tmp_path / "scratch").glob("results-*.jsonl")
    records = compare.read_results([results])
    runs = [record for record in records if record["kind"] == "run"]
    assert {run["count"] for run in runs if run["name"] == "ours"} == {3, 12}
    assert [run["problem"] for run in runs] == [None] * len(runs)
    assert all(run["rows"] == run["count"] for run in runs)
    if importlib.util.find_spec("ai_edge_litert"):
        assert [run["top_1"] for run in runs] == [1.0] * 4
    page = (tmp_path / "docs" / "benchmarks.md").read_text()
    assert str(tmp_path) not in page
    assert "- First run, with an empty cache" in page


def test_several_results_make_one_report(tmp_path: Path) -> None:
    first = recorded({"handwritten": [(6, 21), (7, 22)]}, {"daft": "no wheel"})
    second = recorded({"handwritten": [(8, 24)], "daft": [(30, 60)]}, {})
    paths = []
    for name, records in (("a", first), ("b", second)):
        paths.append(tmp_path / name)
        paths[-1].write_text("".join(json.dumps(record) + "\n" for record in records))
    report.write_report(compare.read_results(paths), tmp_path / "docs")
    page = (tmp_path / "docs" / "benchmarks.md").read_text()
    assert "no wheel" not in page
    assert "| T daft | 30.0 " in page
    # Its ratios are those to the hand-written script of the same run: 188 / 100 images a second.
    (ratios,) = [line for line in page.splitlines() if line.startswith("| T daft | 0.53")]
    assert "3.75" in ratios
    assert any(line.startswith("| T handwritten | 7.0 (6.0–8.0)") for line in page.splitlines())
    assert page.count("python benchmarks/compare.py --module M") == 2
