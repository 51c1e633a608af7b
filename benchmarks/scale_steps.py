"""Measures the steps of a run that process all units, with stub units: ``python benchmarks/scale_steps.py``.

Between planning and publishing, many machines process the images, and each unit costs the same. This program measures
the steps that one process does for all units, at growing numbers of references, each step in a separate process:
planning (a stub source generates the names; packing and staging are the job's), the graph from the plan to
``commit.json`` (stub units stage a shard of a few bytes, a failure shard and a record, as ``WriteUnit`` does; Beam's
shuffle and ``Commit`` are the job's), publishing, and reading the manifest. The output is in memory (``/dev/shm``), and
every storage call that is a request to a bucket is counted.

    python benchmarks/scale_steps.py [--references 1e5,1e6,1e7] [--units 1e5] [--steps plan,commit,publish,read]
    python benchmarks/scale_steps.py --references "" --units 1e5 --steps records,manifest,reading

Prints Markdown. ``--units`` are units without a plan, of 10,000 images each. ``records``, ``manifest`` and ``reading``
use records only: they measure making ``commit.json`` and ``_MANIFEST.json``, the sizes of both, and reading the latter.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import apache_beam as beam
from jobs import ROOT
from measure import measure

from beamlabel.pipeline import layout
from beamlabel.pipeline.job.commit import Commit, commit
from beamlabel.pipeline.output.manifest import make_manifest, read_json, read_manifest
from beamlabel.pipeline.output.publish import _json_bytes, publish
from beamlabel.transforms import storage
from beamlabel.transforms.inputs.sources import registry
from beamlabel.transforms.inputs.sources.packed import Found, plan_packed
from beamlabel.transforms.inputs.sources.source import Planned, SourceOptions
from beamlabel.transforms.inputs.sources.text import TextSource
from beamlabel.transforms.records import FileRecord, InputFile, UnitRecord, WorkUnit
from beamlabel.transforms.storage import local
from beamlabel.transforms.units.plan_units import PlanUnits, plan_files
from beamlabel.transforms.units.unit_records import stage_record

STUB = "stub"
STEPS = ("plan", "commit", "publish", "read")
# Without files and without Beam: the commit and the manifest at any number of units.
BARE_STEPS = ("records", "manifest", "reading")
UNIT_ROWS = 10_000
# Size of a unit's shard: 10,000 rows with 1,280 features in float32, compressed. Stub files have holes of this size.
_SHARD_BYTES = 50_000_000
# Requests of a storage call on gs://: a move is a copy and a deletion.
_REQUESTS = {"stat": 1, "open_input": 1, "read_bytes": 1, "write_bytes": 1, "create_if_absent": 1, "put_file": 1,
             "copy": 1, "move": 2, "delete": 1}  # fmt: skip
_PAGE = 1000


class StubSource(TextSource):
    """A list of images without a file: ``InputFile.rows`` names in order."""

    def plan(
        self, number: int, file: InputFile, options: SourceOptions, limit: int | None
    ) -> Iterator[Planned]:
        places = (Found(f"gs://photos/{row // 1000:07d}/{row:012d}.jpg") for row in range(file.rows or 0))
        yield from plan_packed(number, file, places, options, limit)


def count_requests() -> Counter[str]:
    """Counts the calls of the local storage that are requests to a bucket, and the pages of listings."""
    counts = Counter[str]()
    within = threading.local()

    def counted(name: str, requests: int) -> None:
        function = getattr(local, name)

        def call(*arguments: Any) -> Any:
            if getattr(within, "call", False):  # one of these calls another
                return function(*arguments)
            within.call = True
            counts[name] += requests
            try:
                return function(*arguments)
            finally:
                within.call = False

        setattr(local, name, call)

    def paged(name: str) -> None:
        function = getattr(local, name)

        def call(directory: str) -> Any:
            for number, file in enumerate(function(directory)):
                counts["list"] += number % _PAGE == 0
                yield file

        setattr(local, name, call)

    for name, requests in _REQUESTS.items():
        counted(name, requests)
    paged("below")
    paged("glob")
    return counts


def written(unit: WorkUnit, staging_dir: str) -> UnitRecord:
    """Does the work of ``WriteUnit`` for a unit, with files of a few bytes and a hole that gives them their size."""
    files = _files(unit)
    for file in files:
        path = storage.join(staging_dir, file.name)
        storage.write_bytes(path, file.sha256.encode())
        os.truncate(path, file.bytes)
    return stage_record(_record(unit, files), staging_dir)


def _files(unit: WorkUnit) -> list[FileRecord]:
    """Returns a shard, and the failures of one row in a thousand."""
    rows = unit.stop - unit.start
    failed = rows // 1000
    kinds = (("shards", "data", "parquet", rows - failed), ("failures", "failures", "jsonl", failed))
    files = []
    for directory, kind, ending, count in kinds:
        digest = hashlib.sha256(f"{kind} {unit.unit_id}".encode()).hexdigest()
        name = f"{directory}/{unit.unit_id}-{digest[:16]}.{ending}"
        computed_by, now = "litert float32" if kind == "data" else None, time.time()
        if count:
            files.append(FileRecord(name, kind, count, _SHARD_BYTES, digest, computed_by, now, now))
    return files


def _record(unit: WorkUnit, files: Sequence[FileRecord]) -> UnitRecord:
    rows = unit.stop - unit.start
    failed = rows // 1000
    reasons = {"not_found": failed} if failed else {}
    return UnitRecord(unit.unit_id, unit.ranges, rows, rows - failed, reasons, 0, tuple(files))


def _file(references: int, kind: str) -> InputFile:
    return InputFile("gs://lists/photos.txt", kind, references * 38, "1", rows=references)


def _units_alone(count: int) -> Iterator[WorkUnit]:
    file = _file(count * UNIT_ROWS, "text")
    for number in range(count):
        start = number * UNIT_ROWS
        name = f"00000-{start:012d}-{number:08x}"
        yield WorkUnit(name, file, start, start + UNIT_ROWS, number == count - 1)


def plan_step(references: int, output: str) -> dict[str, int]:
    """Only plans, unit after unit, as one worker does."""
    from beamlabel.transforms.inputs.packed_refs import RefSpiller

    spiller = RefSpiller(_staging(output))
    units = 0
    for unit in plan_files([(0, _file(references, STUB))], SourceOptions("/")):
        spiller.spill(unit)
        units += 1
    return {"units": units}


def commit_step(references: int, units: int, output: str) -> dict[str, int]:
    """Runs the graph from the plan to ``commit.json``."""
    staging_dir = _staging(output)
    file = _file(references or units * UNIT_ROWS, STUB if references else "text")
    _write_job(output, file)
    with beam.Pipeline("DirectRunner") as pipeline:
        if references:
            planned = pipeline | "PlanUnits" >> PlanUnits([file], SourceOptions("/"), staging_dir)
        else:
            number = pipeline | beam.Create([units], reshuffle=False)
            planned = number | beam.FlatMap(_units_alone).with_output_types(WorkUnit)
        records = planned | beam.Reshuffle() | beam.Map(written, staging_dir).with_output_types(UnitRecord)
        records | Commit(staging_dir=staging_dir, files=[file], limited=False)  # type: ignore[unused-coroutine]
    return {"bytes": storage.stat(storage.join(staging_dir, layout.COMMIT)).size or 0}


def publish_step(output: str) -> dict[str, int]:
    """Publishes as the launcher does at the end."""
    manifest = publish(output, _staging(output))
    size = storage.stat(storage.join(output, layout.MANIFEST)).size or 0
    return {"files": len(manifest["files"]), "bytes": size}


def read_step(output: str) -> dict[str, int]:
    """Reads the manifest, as every reader of an output does first."""
    manifest = read_manifest(output)
    assert manifest is not None
    return {"files": len(manifest["files"])}


def records_step(units: int, output: str) -> dict[str, int]:
    """Writes ``commit.json`` of records that were never staged."""
    file = _file(units * UNIT_ROWS, "text")
    _write_job(output, file)
    records = [_record(unit, _files(unit)) for unit in _units_alone(units)]
    path = commit(records, staging_dir=_staging(output), files=[file], limited=False)
    return {"bytes": storage.stat(path).size or 0}


def manifest_step(output: str) -> dict[str, int]:
    """Does the work of ``publish`` before it moves a file, and writes the manifest as it does."""
    staging_dir = _staging(output)
    job, committed = (read_json(storage.join(staging_dir, name)) for name in (layout.JOB, layout.COMMIT))
    records = [UnitRecord.from_json(record) for record in committed["records"]]
    manifest = make_manifest(output, staging_dir, job, records, (), committed)
    data = _json_bytes(manifest)
    storage.write_bytes(storage.join(output, layout.MANIFEST), data)
    return {"files": len(manifest["files"]), "bytes": len(data)}


def _staging(output: str) -> str:
    return storage.join(output, layout.OWN, layout.STAGING, "plan")


def _write_job(output: str, file: InputFile) -> None:
    job = {
        "format": layout.JOB_FORMAT,
        "run_id": "20260101T000000Z-abcdef",
        "started_at": time.time(),
        "max_error_rate": 0.1,
        "min_failures": 0,
        "schema_pbtxt": None,
        "manifest": {
            "schema_version": 2,
            "run_id": "20260101T000000Z-abcdef",
            "plan_id": "plan",
            "metadata": {},
            "options": {},
            "input_files": [{"path": file.path, "format": file.format}],
        },
    }
    storage.write_bytes(storage.join(_staging(output), layout.JOB), json.dumps(job).encode())


def run_step(name: str, references: int, units: int, output: str) -> None:
    """Runs one step in this process; prints its figures as JSON."""
    counts = count_requests()
    begin, cpu = time.perf_counter(), time.process_time()
    if name == "plan":
        told = plan_step(references, output)
    elif name == "commit":
        told = commit_step(references, units, output)
    elif name == "publish":
        told = publish_step(output)
    elif name == "records":
        told = records_step(units, output)
    elif name == "manifest":
        told = manifest_step(output)
    else:
        told = read_step(output)
    told |= {"requests": counts.total()}
    seconds = {"seconds": time.perf_counter() - begin, "cpu": time.process_time() - cpu}
    print(json.dumps({**told, **seconds, "by": counts}))


def _measured(name: str, references: int, units: int, scratch: Path) -> dict[str, Any]:
    arguments = [
        "--step",
        name,
        "--references",
        str(references),
        "--units",
        str(units),
        "--output",
        str(scratch / "out"),
    ]
    log = scratch / "log.txt"
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    cost = measure(
        [sys.executable, __file__, *arguments],
        environment=environment,
        directory=scratch,
        log=log,
        timeout=7200,
    )
    if cost.code:
        raise RuntimeError(f"{name} of {references or units}: exit code {cost.code}\n{cost.stderr[-3000:]}")
    return {**json.loads(cost.stderr.splitlines()[-1]), "mb": cost.pss_mb}


def _number(text: str) -> int:
    return int(float(text))


def _numbers(text: str) -> list[int]:
    return [_number(one) for one in text.split(",") if one]


def _show(steps: Sequence[str], references: int, units: int) -> None:
    with tempfile.TemporaryDirectory(dir="/dev/shm") as directory:
        scratch = Path(directory)
        for name in steps:
            if name == "plan":
                if not references:
                    continue
                with tempfile.TemporaryDirectory(dir="/dev/shm") as other:
                    (Path(other) / "out").mkdir()
                    found = _measured(name, references, units, Path(other))
            else:
                (scratch / "out").mkdir(exist_ok=True)
                found = _measured(name, references, units, scratch)
            told = ", ".join(f"{key} {found[key]:,}" for key in ("units", "files", "bytes") if key in found)
            images = references or units * UNIT_ROWS
            print(
                f"| {images:.0e} | {name} | {found['seconds']:.1f} | {found['cpu']:.1f} | {found['mb']:.0f} | "
                f"{found['requests']:,} | {told} |",
                flush=True,
            )


def main() -> None:
    registry._SOURCES[STUB] = StubSource()
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--references", type=_numbers, default=[100_000, 1_000_000, 10_000_000])
    parser.add_argument("--units", type=_numbers, default=[])
    parser.add_argument("--steps", type=lambda text: text.split(","), default=list(STEPS))
    parser.add_argument("--step", choices=(*STEPS, *BARE_STEPS), help=argparse.SUPPRESS)
    parser.add_argument("--output", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.step:
        run_step(options.step, options.references[0], options.units[0], options.output)
        return
    print("| images | step | seconds | CPU s | peak MiB | requests | |")
    print("| ---: | --- | ---: | ---: | ---: | ---: | --- |")
    for references in options.references:
        _show(options.steps, references, 0)
    for units in options.units:
        _show(options.steps, 0, units)


if __name__ == "__main__":
    main()
