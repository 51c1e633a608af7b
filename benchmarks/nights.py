"""Time and memory of ``beamlabel compact`` and ``beamlabel diff`` over generated nights of two sizes.

::

    python benchmarks/nights.py --rows 500000 5000000 --nights 10

The two sizes show that memory is flat. Half of a night's rows are of new images and half of images that were labeled
before; there are a few tombstones. Linux only.
"""

from __future__ import annotations

import argparse
import datetime as dt
import hashlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from beamlabel.transforms.rows import metadata_keys, schema
from beamlabel.transforms.rows.schema import OutputSpec, arrow_schema
from beamlabel.transforms.writing.staged_files import write_data

_SHARD_ROWS = 50_000
_BATCH_ROWS = 5_000
_CLASSES = 1000
_METADATA = {
    metadata_keys.SCHEMA_VERSION: schema.CURRENT_SCHEMA_VERSION,
    metadata_keys.MODULE_HANDLE: "made up",
    metadata_keys.MODULE_FINGERPRINT: "f" * 64,
    metadata_keys.PREPROCESSING_ID: "0" * 64,
    metadata_keys.SCORES: "softmax",
    metadata_keys.NUM_CLASSES: str(_CLASSES),
    metadata_keys.TOP_K: "1",
    metadata_keys.LABELS_SHA256: "0" * 64,
}
_TOMBSTONES = pa.schema(
    {"image_id": pa.string(), "uri": pa.string(), "ref_id": pa.string(), "deleted_at": pa.timestamp("us", "UTC"),
     "run_id": pa.string()}
)  # fmt: skip


def batch(images: np.ndarray, night: int, dimension: int) -> pa.RecordBatch:
    """Returns the rows of a night for images with these numbers."""
    random = np.random.default_rng([int(images[0]), night])
    classes = random.integers(0, _CLASSES, len(images))
    scores = random.random(len(images), np.float32)
    names = [f"class {number}" for number in classes]
    uris = [f"gs://bucket/photos/{number:09d}.jpg" for number in images]
    at = dt.datetime(2026, 1, 1, tzinfo=dt.timezone.utc) + dt.timedelta(days=night)
    columns = {
        "uri": uris,
        "ref_id": [f"gs://bucket/photos/#{number}" for number in images],
        "image_id": [hashlib.blake2b(uri.encode(), digest_size=16).hexdigest() for uri in uris],
        "label": names,
        "score": scores,
        "labels": [[name] for name in names],
        "class_ids": classes.astype(np.int32)[:, None].tolist(),
        "scores": scores[:, None].tolist(),
        "embedding": random.random((len(images), dimension), np.float32).tolist(),
        "width": np.full(len(images), 640, np.int32),
        "height": np.full(len(images), 480, np.int32),
        "format": ["jpeg"] * len(images),
        "source_bytes": random.integers(10_000, 100_000, len(images)),
        "source_version": [str(number * 1000 + night) for number in images],
        "content_hash": [f"{number:024x}{night:08x}" for number in images],
        "module_handle": ["made up"] * len(images),
        "module_fingerprint": ["f" * 64] * len(images),
        "preprocessing_id": ["0" * 64] * len(images),
        "labeled_at": [at] * len(images),
    }
    wanted = arrow_schema(spec(dimension))
    arrays = [pa.array(columns[column.name], column.type) for column in wanted]
    return pa.RecordBatch.from_arrays(arrays, schema=wanted)


def spec(dimension: int) -> OutputSpec:
    """Returns the specification of a night's output."""
    metadata = {**_METADATA, metadata_keys.EMBEDDING_DIM: str(dimension)}
    return OutputSpec(
        has_labels=True, top_k=1, num_classes=_CLASSES, embedding_dim=dimension, metadata=metadata,
        module_fingerprint="f" * 64, preprocessing_id="0" * 64,
    )  # fmt: skip


def write_night(directory: Path, images: np.ndarray, deleted: np.ndarray, night: int, dimension: int) -> None:
    """Writes a published output."""
    directory.mkdir(parents=True)
    run = f"night{night:03d}"
    files = []

    def described(name: str, kind: str, rows: int) -> None:
        data = (directory / name).read_bytes()
        digest = hashlib.sha256(data).hexdigest()
        files.append(
            {
                "name": name,
                "kind": kind,
                "rows": rows,
                "bytes": len(data),
                "sha256": digest,
                "staged_as": name,
            }
        )

    for number, start in enumerate(range(0, len(images), _SHARD_ROWS)):
        shard = images[start : start + _SHARD_ROWS]
        name = f"part-{run}-{number:05d}.parquet"
        parts = (
            batch(shard[at : at + _BATCH_ROWS], night, dimension) for at in range(0, len(shard), _BATCH_ROWS)
        )
        with (directory / name).open("wb") as file:
            write_data(file, parts, spec(dimension))
        described(name, "data", len(shard))
    began = dt.datetime(2026, 1, 1, tzinfo=dt.timezone.utc) + dt.timedelta(days=night)
    if len(deleted):
        (directory / "_deleted").mkdir()
        uris = [f"gs://bucket/photos/{number:09d}.jpg" for number in deleted]
        ids = [hashlib.blake2b(uri.encode(), digest_size=16).hexdigest() for uri in uris]
        rows = {
            "image_id": ids,
            "uri": uris,
            "ref_id": [None] * len(ids),
            "deleted_at": [began] * len(ids),
            "run_id": [run] * len(ids),
        }
        name = f"_deleted/part-{run}-00000.parquet"
        pq.write_table(pa.table(rows, _TOMBSTONES), directory / name)
        described(name, "deleted", len(deleted))
    rows_of = {"input": len(images), "predicted": len(images), "failed": 0, "skipped": 0}
    manifest = {
        "schema_version": "2", "run_id": run, "plan_id": run, "output": str(directory), "rows": rows_of,
        "conserved": True, "complete": True, "failed_by_reason": {}, "error_rate": 0.0, "within_error_rate": True,
        "kept_columns": {}, "metadata": spec(dimension).metadata, "module": {"fingerprint": "f" * 64}, "files": files,
        "preprocessing": {}, "options": {"max_error_rate": 0.05, "report": False, "base_dir": None},
        "started_at": began.isoformat(), "committed_at": began.isoformat(), "seconds": 1.0, "input_files": [],
    }  # fmt: skip
    (directory / "_MANIFEST.json").write_text(json.dumps(manifest))


def write_nights(directory: Path, rows: int, nights: int, dimension: int) -> None:
    """Writes nights of ``rows`` rows in all; from the second night on, half are of images labeled before."""
    each = rows // nights
    random = np.random.default_rng(0)
    known = 0
    for night in range(nights):
        again = 0 if not night else each // 2
        fresh = np.arange(known, known + each - again)
        images = np.concatenate([random.choice(known, again, replace=False) if again else fresh[:0], fresh])
        deleted = random.choice(known, min(known // 100, 10_000), replace=False) if known else fresh[:0]
        write_night(directory / f"dt={night:03d}", images, deleted, night, dimension)
        known += len(fresh)


def measured(*arguments: str) -> tuple[float, float, str]:
    """Runs a command; returns seconds, peak MB and its last line."""
    begin = time.monotonic()
    program = "import resource, sys; from beamlabel.pipeline.commands import {0} as c; code = c.main(sys.argv[1:]); "
    program += "print('MB', resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, file=sys.stderr); sys.exit(code)"
    done = subprocess.run(
        [sys.executable, "-c", program.format(arguments[0]), *arguments[1:]],
        capture_output=True,
        text=True,
        check=True,
    )
    *said, last = done.stderr.splitlines()
    return time.monotonic() - begin, float(last.split()[1]), said[-1] if said else ""


def table(sizes: list[int], nights: int, dimension: int, scratch: Path) -> Iterator[str]:
    """Yields the rows of the page's table."""
    yield "| rows read | | seconds | rows a second | MB at most |"
    yield "| --- | --- | --- | --- | --- |"
    for rows in sizes:
        with tempfile.TemporaryDirectory(dir=scratch) as name:
            directory = Path(name)
            write_nights(directory / "labels", rows, nights, dimension)
            current = str(directory / "current")
            commands = [
                ("compact", str(directory / "labels"), "--output", current),
                ("diff", str(directory / "labels"), current, "--json"),
            ]
            for command in commands:
                seconds, megabytes, said = measured(*command)
                sys.stderr.write(f"{said}\n")
                yield f"| {rows:,} | {command[0]} | {seconds:.1f} | {rows / seconds:,.0f} | {megabytes:.0f} |"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", type=int, nargs="+", default=[500_000, 5_000_000])
    parser.add_argument("--nights", type=int, default=10)
    parser.add_argument("--dimension", type=int, default=32, help="dimension of an embedding (default 32)")
    parser.add_argument("--scratch", type=Path, default=Path(tempfile.gettempdir()))
    options = parser.parse_args()
    os.environ["PYTHONPATH"] = os.pathsep.join(
        [str(Path(__file__).parents[1]), os.environ.get("PYTHONPATH", "")]
    )
    for line in table(options.rows, options.nights, options.dimension, options.scratch):
        sys.stdout.write(f"{line}\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
