"""Compares the labeling job with its alternatives: ``python benchmarks/compare.py --module DIR``.

All contenders label the same photographs with the same module on this machine, one after the other in each round, each
in a separate process. Writes ``benchmarks.md`` and ``benchmarks.png``. The measurements are kept as JSON lines, from
which ``--report-only`` writes the report again.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import shlex
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import environments
from answers import Answers, compare_answers, read_answers
from contenders import CONTENDERS, HANDWRITTEN, OURS, Contender, Job, command
from measure import Cost, measure
from photos import photographs
from report import write_report

ROOT = environments.HERE.parent
WARM_UP_IMAGES = 64
HELP_RUNS = 5


class RefusedError(Exception):
    """The comparison cannot be made; the message gives the reason."""


class Results:
    """A file of JSON lines that grows with the measurements."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self.path = path

    def add(self, kind: str, **facts: Any) -> None:
        with self.path.open("a") as file:
            file.write(json.dumps({"kind": kind, **facts}) + "\n")


class Comparison:
    """One run of this program: its directories, contenders and measurements."""

    def __init__(self, options: argparse.Namespace, scratch: Path) -> None:
        self._scratch = scratch
        self._counts: list[int] = options.counts
        self._rounds: int = options.rounds
        stamp = datetime.now(timezone.utc).strftime("%Y%m%dT%H%M%S")
        self.results = Results(scratch / f"results-{stamp}.jsonl")
        self._images = _images(options.images, scratch, max(self._counts))
        self._module, self._prepared = _prepare(options.module, scratch)
        self._ready: list[tuple[Contender, str]] = []
        self._reference: dict[int, Answers] = {}
        self._variables = {**environments.variables(), "BEAMLABEL_CACHE": str(scratch / "beamlabel")}

    def describe(self, arguments: Sequence[str], made: bool) -> None:
        # Reading them also brings all of them into the page cache.
        sizes = [len(path.read_bytes()) for path in self._images]
        facts = json.loads((self._prepared / "facts.json").read_text())
        self.results.add(
            "setup",
            date=datetime.now(timezone.utc).date().isoformat(),
            command=shlex.join(["python", "benchmarks/compare.py", *map(_without_directories, arguments)]),
            counts=self._counts,
            rounds=self._rounds,
            module={"name": self._module.name, **facts},
            photographs={"made": made, "mean_bytes": round(statistics.mean(sizes))},
            machine=environments.machine(),
        )

    def make_ready(self, contenders: Sequence[Contender]) -> None:
        """Creates environments and runs each contender once over a few images to fill caches and show failures."""
        for contender in contenders:
            missing, found = None, {}
            try:
                environments.check_modules(contender.needs)
                python = environments.python_of(contender.environment, self._scratch)
                found = environments.versions(python)
                if contender.environment == "spark":
                    found["java"] = environments.java_version()
                facts = self._run(contender, python, min(WARM_UP_IMAGES, *self._counts))
                missing = facts["problem"]
            except environments.MissingError as error:
                missing = str(error)
            if missing is None:
                self._ready.append((contender, python))
            told = None if missing is None else self._shorten(missing)
            _say(f"{contender.name}: {told or 'ready'}")
            self.results.add(
                "contender", name=contender.name, title=contender.title, missing=told, versions=found
            )

    def run_rounds(self) -> None:
        """Runs each contender at each count, round by round; every second round in the opposite order."""
        self._reference.clear()
        for number in range(self._rounds):
            for contender, python in self._ready if number % 2 == 0 else self._ready[::-1]:
                for count in self._counts:
                    facts = self._run(contender, python, count)
                    self.results.add("run", name=contender.name, round=number, count=count, **facts)
                    _say(
                        f"round {number + 1}, {contender.name}, {count} images: {facts['seconds']:.1f} s, "
                        f"{facts['pss_mb']:.0f} MB{', ' + facts['problem'] if facts['problem'] else ''}"
                    )

    def run_once(self) -> None:
        """Measures only this project's command: runs with an empty cache, and ``--help``."""
        ours = next((entry for entry in self._ready if entry[0].name == OURS), None)
        if ours is None:
            return
        for _ in range(self._rounds):
            shutil.rmtree(self._scratch / "cold", ignore_errors=True)
            facts = self._run(*ours, self._counts[0], {"BEAMLABEL_CACHE": str(self._scratch / "cold")})
            self.results.add("cold_start", count=self._counts[0], **facts)
        help_command = [sys.executable, "-m", "beamlabel", "--help"]
        seconds = [self._measure(help_command, {}, "help").seconds for _ in range(HELP_RUNS)]
        self.results.add("help", seconds=seconds)

    def _run(
        self, contender: Contender, python: str, count: int, variables: dict[str, str] | None = None
    ) -> dict[str, Any]:
        images = self._scratch / "lists" / f"{count}.txt"
        images.parent.mkdir(exist_ok=True)
        images.write_text("".join(f"{path}\n" for path in self._images[:count]))
        output = self._scratch / "outputs" / contender.name
        job = Job(images, self._module, self._prepared)
        cost = self._measure(command(contender, python, job, output), variables or {}, contender.name)
        facts = dataclasses.asdict(cost)
        facts.pop("stderr")
        facts |= {"rows": None, "top_1": None, "cosine": None, "problem": None}
        if cost.code:
            facts["problem"] = self._shorten(last_words(cost.stderr) or f"exit code {cost.code}")
            return facts
        try:
            facts |= self._check(contender, output, count)
        except (OSError, ValueError, LookupError) as error:
            facts["problem"] = self._shorten(f"its output: {error}")
        return facts

    def _check(self, contender: Contender, output: Path, count: int) -> dict[str, Any]:
        """Counts rows and compares them with those of the hand-written script's first run."""
        found = read_answers(output)
        facts: dict[str, Any] = {"rows": len(found.uris), "classes": len(set(found.best.tolist()))}
        if len(found.uris) != count:
            raise ValueError(f"{len(found.uris)} rows of {count}")
        if contender.name == HANDWRITTEN:
            self._reference.setdefault(count, found)
        if count in self._reference:
            facts |= dataclasses.asdict(compare_answers(self._reference[count], found))
        if contender.script is None:
            manifest = json.loads((output / "_MANIFEST.json").read_text())
            facts["seconds_to_first_label"] = manifest.get("seconds_to_first_label")
            facts["computed_by"] = sorted({file["computed_by"] for file in manifest["files"]})
        return facts

    def _measure(self, words: Sequence[str], variables: dict[str, str], name: str) -> Cost:
        logs = self._scratch / "logs"
        logs.mkdir(exist_ok=True)
        environment = {**self._variables, **variables}
        return measure(words, environment=environment, directory=ROOT, log=logs / f"{name}.txt")

    def _shorten(self, text: str) -> str:
        """Removes directories of this machine, and shortens the text for a table."""
        for directory in (self._scratch, ROOT, Path(sys.prefix), Path.home()):
            text = text.replace(f"{directory}/", "")
        return text if len(text) <= 200 else text[:199] + "…"


def _images(directory: Path | None, scratch: Path, count: int) -> list[Path]:
    if directory is None:
        _say(f"making {count} photographs, unless they exist")
        return photographs(scratch, count)
    found = sorted(p.absolute() for p in directory.rglob("*") if p.suffix.lower() in (".jpg", ".jpeg"))
    if len(found) < count:
        raise RefusedError(f"{directory} contains {len(found)} JPEG files, but --counts needs {count}")
    return found[:count]


def _prepare(handle: str, scratch: Path) -> tuple[Path, Path]:
    """The module's directory, and the one with its parts for the peers."""
    from beamlabel.transforms.hub.resolve import resolve_module
    from beamlabel.transforms.inference.artifact import ModuleError

    try:
        module = resolve_module(handle, scratch / "beamlabel")
    except ModuleError as error:
        raise RefusedError(str(error)) from error
    prepared = scratch / "prepared" / module.fingerprint[:16]
    if not (prepared / "facts.json").exists():
        _say("converting the module for the hand-written script")
        script = str(environments.HERE / "peers" / "prepare.py")
        words = [sys.executable, script, "--module", str(module.path), "--prepared", str(prepared)]
        finished = subprocess.run(words, env=environments.variables(), capture_output=True, text=True)
        if finished.returncode:
            raise RefusedError(f"the module cannot be prepared for the peers: {finished.stderr[-500:]}")
    return module.path, prepared


def last_words(stderr: str) -> str:
    """The last line with a message; not the one that only points to the help."""
    lines = [line.strip() for line in stderr.splitlines()]
    return next((line for line in reversed(lines) if line and not line.startswith("Try '")), "")


def _without_directories(argument: str) -> str:
    return Path(argument).name if argument.startswith(("/", "~", "..")) else argument


def _say(text: str) -> None:
    print(time.strftime("%H:%M:%S"), text, file=sys.stderr, flush=True)


def _counts(text: str) -> list[int]:
    counts = sorted({int(part) for part in text.split(",")})
    if len(counts) != 2 or counts[0] < 1:
        raise argparse.ArgumentTypeError(f"expected two different counts, such as 1000,4000, not {text!r}")
    return counts


def _chosen(text: str) -> list[Contender]:
    names = text.split(",")
    if unknown := set(names) - {contender.name for contender in CONTENDERS}:
        known = ", ".join(contender.name for contender in CONTENDERS)
        raise argparse.ArgumentTypeError(f"unknown: {', '.join(sorted(unknown))}; choose from {known}")
    return [contender for contender in CONTENDERS if contender.name in names]


def _parse(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument(
        "--module", metavar="HANDLE", help="a TF1 Hub module of MobileNet V2: handle, directory or .tar.gz"
    )
    what.add_argument(
        "--report-only",
        type=Path,
        nargs="+",
        metavar="RESULTS",
        help="write the report from these results; run nothing",
    )
    parser.add_argument(
        "--images", type=Path, metavar="DIR", help="JPEG photographs, instead of generated ones"
    )
    parser.add_argument(
        "--counts", type=_counts, default=[1000, 4000], help="images in the short and the long run"
    )
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument(
        "--only", type=_chosen, default=list(CONTENDERS), metavar="NAME,...", help="run only these contenders"
    )
    parser.add_argument(
        "--output", type=Path, default=environments.HERE, metavar="DIR", help="directory of the report"
    )
    parser.add_argument("--scratch", type=Path, metavar="DIR", help="environments, photographs, results")
    return parser.parse_args(arguments)  # fmt: skip


def _scratch(named: Path | None) -> Path:
    import platformdirs

    cache = os.environ.get("BEAMLABEL_CACHE") or platformdirs.user_cache_dir("beamlabel")
    return (named or Path(cache) / "benchmarks").absolute()


def read_results(paths: Sequence[Path]) -> list[dict[str, Any]]:
    """The records of one file, or of several as one: rounds continue, and a contender of any file counts."""
    records: list[dict[str, Any]] = []
    for path in paths:
        first_round = 1 + max((r["round"] for r in records if r["kind"] == "run"), default=-1)
        for record in map(json.loads, path.read_text().splitlines()):
            if record["kind"] == "run":
                record["round"] += first_round
            elif record["kind"] == "setup" and records:
                records[0]["command"] += "\n" + record["command"]
                continue
            elif record["kind"] == "contender":
                known = next((r for r in records if r.get("title") == record["title"]), None)
                if known is not None:
                    known.update({} if record["missing"] else record)
                    continue
            records.append(record)
    return records


def main(arguments: Sequence[str]) -> int:
    options = _parse(arguments)
    results = options.report_only
    if results is None:
        try:
            comparison = Comparison(options, _scratch(options.scratch))
        except RefusedError as error:
            _say(str(error))
            return 2
        results = [comparison.results.path]
        _say(f"results: {results[0]}")
        comparison.describe(arguments, made=options.images is None)
        comparison.make_ready(options.only)
        comparison.run_rounds()
        comparison.run_once()
    for written in write_report(read_results(results), options.output):
        _say(f"wrote {written}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
