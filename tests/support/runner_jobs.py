"""One job for every runner, with 200 images, 10 of them broken in different ways, and the required equality."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from beamlabel.transforms.records import Reason
from support.images import flip, png
from support.jobs import TINY, FinishedJob, photos, uri_list
from support.paths import ROOT

PRISM = ROOT / ".runners" / "prism" / "prism"
IMAGES, BROKEN = 200, 10
# Units of at most 25 rows: one each of a.csv, b.jsonl, d, e.zip, f.parquet and the small lists, two of c.tar and of
# h.txt.
UNITS, UNIT_ROWS = 10, 25
OPTIONS = ("--module", TINY, "--shard_rows", UNIT_ROWS, "--max_bytes", 100_000, "--max_error_rate", 1)


@dataclass(frozen=True)
class MixedInput:
    """Inputs of every kind, and the reason of each broken image by its URI."""

    inputs: tuple[Path, ...]
    reasons: Mapping[str, Reason]


def mixed_input(directory: Path) -> MixedInput:
    """Writes the 200 images, the broken ones spread over all sources, so that one job reads each kind of input."""
    paths = photos(directory / "photos", IMAGES)
    uris = [str(path) for path in paths]
    whole = paths[0].read_bytes()
    broken: list[tuple[Reason, bytes | str | None]] = [
        (Reason.NOT_FOUND, None),
        (Reason.EMPTY_FILE, b""),
        (Reason.NOT_AN_IMAGE, b"<!DOCTYPE html>\n<html><body>404 Not Found</body></html>\n"),
        (Reason.TRUNCATED, whole[: len(whole) // 2]),
        (Reason.CORRUPT, flip(whole, len(whole) // 2)),
        (Reason.UNSUPPORTED_FORMAT, b'<svg xmlns="http://www.w3.org/2000/svg"/>\n'),
        (Reason.TOO_MANY_PIXELS, png(30000, 30000, 8, 2, b"")),
        (Reason.TOO_MANY_BYTES, whole + bytes(100_000)),
        (Reason.UNSUPPORTED_SCHEME, "ftp://images.example/cat.png"),
        (Reason.NOT_ALLOWED, "https://images.example/cat.png"),
    ]
    rows = {}
    for place, (reason, content) in enumerate(broken):
        row = place * (IMAGES // BROKEN) + 7
        if content is None:
            paths[row].unlink()
        elif isinstance(content, str):
            uris[row] = content
        else:
            paths[row].write_bytes(content)
        rows[row] = reason
    inputs = _sources(directory, paths, uris)
    return MixedInput(inputs, {uris[row]: reason for row, reason in rows.items()})


def _sources(directory: Path, paths: list[Path], uris: list[str]) -> tuple[Path, ...]:
    """Distributes the images to sources of each kind; ``uris`` become the URIs of the rows."""
    inputs = directory / "inputs"
    inputs.mkdir()
    with (inputs / "a.csv").open("w", newline="") as file:
        csv.writer(file).writerows([["note", "uri"], *([f'"{n}",\n', uris[n]] for n in range(25))])
    lines = "".join(json.dumps({"uri": uris[n]}) + "\n" for n in range(25, 50))
    (inputs / "b.jsonl").write_text(lines)
    with tarfile.open(inputs / "c.tar", "w") as tar:
        for n in range(50, 80):
            tar.add(paths[n], f"été/{paths[n].name}")
            uris[n] = f"{inputs / 'c.tar'}#été/{paths[n].name}"
    album = inputs / "d"
    album.mkdir()
    for n in range(80, 100):
        uris[n] = str(paths[n].rename(album / paths[n].name))
    (album / ".DS_Store").write_bytes(b"\0\0\0\1Bud1")
    with zipfile.ZipFile(inputs / "e.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        for n in range(100, 120):
            archive.write(paths[n], paths[n].name)
            uris[n] = f"{inputs / 'e.zip'}#{paths[n].name}"
    pairs = [uris[n : n + 2] for n in range(120, 140, 2)]
    pq.write_table(
        pa.table({"uri": pa.array(pairs, pa.list_(pa.string()))}), inputs / "f.parquet", row_group_size=6
    )
    small = [uri_list(inputs / f"g{n}.txt", [uris[n]]) for n in range(140, 160)]
    listed = uri_list(inputs / "h.txt", uris[160:])
    named = [inputs / name for name in ("a.csv", "b.jsonl", "c.tar", "d", "e.zip", "f.parquet")]
    return (*named, *small, listed)


@dataclass(frozen=True)
class Run(FinishedJob):
    """A job that the command ran, and its log."""

    log: str = ""


def run_command(output: Path, *arguments: object, env: Mapping[str, str] | None = None) -> Run:
    """Runs the job as the command in a separate process."""
    done = subprocess.run(
        [sys.executable, "-m", "beamlabel", "--output", str(output), *map(str, arguments)],
        capture_output=True, text=True, timeout=600, cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT), **(env or {})},
    )  # fmt: skip
    return Run(done.returncode, output, done.stdout + done.stderr)


def assert_same_result(found: FinishedJob, expected: FinishedJob) -> None:
    """Checks sorted rows bit for bit, failures and counts; for equal plans also the shards' bytes."""
    if expected.manifest["options"]["output_format"] == "parquet":
        same_rows(found.table, expected.table)
    assert sorted_failures(found) == sorted_failures(expected)
    for fact in ("rows", "conserved", "failed_by_reason", "units", "plan_id"):
        assert found.manifest[fact] == expected.manifest[fact], fact
    assert shards(found) == shards(expected)


def same_rows(found: pa.Table, expected: pa.Table) -> None:
    """Checks that tables are equal to the last bit except for the order of rows."""
    found, expected = (table.combine_chunks().sort_by("ref_id") for table in (found, expected))
    assert found.schema.equals(expected.schema, check_metadata=True)
    assert found.equals(expected)
    for name in ("score", "embedding"):
        if name in expected.schema.names:
            bits = [_float_bytes(table[name]) for table in (found, expected)]
            assert bits[0] == bits[1], name


def _float_bytes(column: pa.ChunkedArray) -> bytes:
    values = column.combine_chunks()
    values = values.flatten() if pa.types.is_fixed_size_list(values.type) else values
    return values.to_numpy(zero_copy_only=False).tobytes()


def sorted_failures(job: FinishedJob) -> list[str]:
    return sorted(json.dumps(failure, sort_keys=True) for failure in job.failures)


def shards(job: FinishedJob) -> list[tuple]:
    """The content of the shards; names hold the run's id, but content must not."""
    files = job.manifest["files"]
    return sorted((f["kind"], f["rows"], f["bytes"], f["sha256"], f.get("computed_by")) for f in files)


def assert_conserved(job: FinishedJob, given: MixedInput) -> None:
    """Checks that every image is either a row or a failure with its reason."""
    rows = job.manifest["rows"]
    assert rows == {"input": IMAGES, "predicted": IMAGES - BROKEN, "failed": BROKEN, "skipped": 0}
    assert job.manifest["conserved"]
    assert {failure["uri"]: failure["reason"] for failure in job.failures} == {
        uri: reason.value for uri, reason in given.reasons.items()
    }


def model_loads(job: FinishedJob) -> int:
    """The number of times that RunInference loaded the model, over all worker processes."""
    return job.manifest["metrics"]["beamlabel.RunInference"]["load_model_latency_milli_secs"]["count"]
