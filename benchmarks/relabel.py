"""The cost of ``beamlabel relabel``: ``python benchmarks/relabel.py``.

The program writes a base module with many features and an own module on it, labels some images with the base, and
multiplies their rows to an output of shards of 10,000 rows. Embeddings are random and not negative, like a network's.
That output is relabeled; each run is a separate process. Options that are not listed go to the command.
"""

from __future__ import annotations

import argparse
import dataclasses
import hashlib
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from jobs import ROOT, run
from measure import Cost

from beamlabel.pipeline.output.verify_files import spec_of
from beamlabel.pipeline.train.module.export import ExportBase, export_module
from beamlabel.transforms.hub.resolve import resolve_module
from beamlabel.transforms.module.load import inspect_module
from beamlabel.transforms.own_module.description import FEATURE_VECTOR, FEATURES_KEY, Description
from beamlabel.transforms.own_module.head import Head
from beamlabel.transforms.storage.host_cache import cache_dir
from beamlabel.transforms.storage.identity import image_id
from beamlabel.transforms.writing.staged_files import write_data

SHARD_ROWS, BATCH_ROWS = 10_000, 512
SIZE, EXAMPLES = 16, 20
_MB = 1e6


def save_modules(base: Path, own: Path, features: int, classes: int) -> None:
    """Writes a module with features, and an own module on that base."""
    import tensorflow as tf

    random = np.random.default_rng(1)
    root = tf.Module()
    root.network = tf.Variable(random.standard_normal((3, features)).astype(np.float32))

    @tf.function(input_signature=[tf.TensorSpec([None, SIZE, SIZE, 3], tf.float32, name="images")])
    def vectors(images: Any) -> dict[str, Any]:
        return {FEATURES_KEY: tf.nn.relu(tf.reduce_mean(images, [1, 2]) @ root.network)}

    tf.saved_model.save(root, str(base), signatures={FEATURE_VECTOR: vectors})
    module = inspect_module(resolve_module(str(base), cache_dir()))
    kernel = random.standard_normal((features, classes)).astype(np.float32) / np.float32(features**0.5)
    head = Head(kernel, np.zeros(classes, np.float32))
    description = Description(
        class_names=tuple(f"class {number}" for number in range(classes)),
        scores=head.scores,
        normalizes=head.normalizes,
        height=SIZE,
        width=SIZE,
        input_range=module.input_range,
        features_of=module.features_of,
        base=str(base),
        base_fingerprint=module.resolved.fingerprint,
        decoding={"crop": None, "color_profile": "convert"},
    )
    export_module(ExportBase.of_module(module), head, description, own)


def labeled(directory: Path, base: Path, output: Path) -> None:
    """Labels a few images with the base."""
    images = directory / "images"
    images.mkdir()
    for number in range(EXAMPLES):
        pixels = np.random.default_rng(number).integers(0, 256, (SIZE, SIZE, 3), dtype=np.uint8)
        cv2.imwrite(str(images / f"{number}.png"), pixels)
    command = [sys.executable, "-m", "beamlabel", "--input", images, "--module", base, "--output", output]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    subprocess.run(list(map(str, command)), check=True, capture_output=True, env=environment)
    shutil.rmtree(images)


def multiplied(output: Path, rows: int) -> int:
    """Multiplies an output to many rows and shards; returns the bytes of all shards."""
    path = output / "_MANIFEST.json"
    manifest = json.loads(path.read_text())
    [example] = [output / file["name"] for file in manifest["files"] if file["kind"] == "data"]
    table = pq.read_table(example)
    metadata = {key.decode(): value.decode() for key, value in table.schema.metadata.items()}
    spec = dataclasses.replace(spec_of(table.schema, metadata), metadata=metadata)
    manifest["files"] = []
    example.unlink()
    for number, start in enumerate(range(0, rows, SHARD_ROWS)):
        count = min(SHARD_ROWS, rows - start)
        shard = output / f"part-{manifest['run_id']}-{number:05d}.parquet"
        batches = (
            rows_of(table, first, min(BATCH_ROWS, start + count - first))
            for first in range(start, start + count, BATCH_ROWS)
        )
        with shard.open("wb") as file:
            write_data(file, batches, spec)
        content = shard.read_bytes()
        manifest["files"].append({
            "name": shard.name, "kind": "data", "rows": count, "bytes": len(content),
            "sha256": hashlib.sha256(content).hexdigest(), "staged_as": shard.name,
        })  # fmt: skip
    manifest["rows"] = {"input": rows, "predicted": rows, "failed": 0, "skipped": 0}
    path.write_text(json.dumps(manifest))
    return sum(int(file["bytes"]) for file in manifest["files"])


def rows_of(table: pa.Table, first: int, count: int) -> pa.RecordBatch:
    """Returns rows like those of a table, with their own names and embeddings."""
    width = table.schema.field("embedding").type.list_size
    features = np.abs(np.random.default_rng(first).standard_normal(count * width, np.float32))
    uris = [f"gs://photos/2026/{number:09d}.jpg" for number in range(first, first + count)]
    values = {
        "uri": pa.array(uris),
        "ref_id": pa.array([f"gs://lists/photos.txt#{number}" for number in range(first, first + count)]),
        "image_id": pa.array([image_id(uri) for uri in uris]),
        "content_hash": pa.array([image_id(uri[1:]) for uri in uris]),
        "embedding": pa.FixedSizeListArray.from_arrays(
            pa.array(features), type=table.schema.field("embedding").type
        ),
    }
    batch = table.combine_chunks().to_batches()[0].take(pa.array([0] * count))
    columns = [values.get(name, batch.column(name)) for name in table.schema.names]
    return pa.record_batch(columns, schema=table.schema)


def relabeled(output: Path, own: Path, scratch: Path, rows: int, arguments: Sequence[str]) -> Cost:
    """Relabels all rows, checks the manifest and returns the cost."""
    target = scratch / "relabeled"
    shutil.rmtree(target, ignore_errors=True)
    command = [sys.executable, "-m", "beamlabel", "relabel", output, "--module", own, "--output", target]
    command += ["--if_exists", "overwrite", *arguments]
    cost = run(list(map(str, command)), scratch)
    counts = json.loads((target / "_MANIFEST.json").read_text())["rows"]
    if counts["predicted"] != rows:
        raise RuntimeError(f"{rows} rows, but the manifest says {counts}")
    return cost


def cpu() -> str:
    """Returns the model of the CPU as Linux names it."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    return next((line.partition(": ")[2] for line in lines if line.startswith("model name")), "")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--rows", type=int, nargs="+", default=[100_000, 1_000_000], help="default 100,000 and 1,000,000"
    )
    parser.add_argument("--features", type=int, default=1280, help="default 1280")
    parser.add_argument("--classes", type=int, default=10, help="default 10")
    parser.add_argument("--rounds", type=int, default=3, help="runs of each size (default 3)")
    parser.add_argument(
        "--scratch", type=Path, metavar="DIR", help="directory for the data, some 10 KB a row"
    )
    options, arguments = parser.parse_known_args()
    print(f"{cpu()} ({platform.machine()}), {os.cpu_count()} cores, Python {platform.python_version()}")
    with tempfile.TemporaryDirectory(dir=options.scratch) as directory:
        scratch = Path(directory)
        base, own = scratch / "base", scratch / "own"
        save_modules(base, own, options.features, options.classes)
        labeled(scratch, base, scratch / "example")
        for rows in options.rows:
            output = scratch / f"labels-{rows}"
            shutil.copytree(scratch / "example", output)
            begin = time.perf_counter()
            size = multiplied(output, rows)
            print(
                f"{rows:,} rows of {options.features} features, {size / _MB:,.0f} MB, made in "
                f"{time.perf_counter() - begin:.0f} s; {options.classes} classes",
                flush=True,
            )
            for _ in range(options.rounds):
                cost = relabeled(output, own, scratch, rows, arguments)
                print(
                    f"  {cost.seconds:.1f} s, {rows / cost.seconds:,.0f} rows/s; CPU {cost.cpu_seconds:.1f} s "
                    f"({cost.cpu_seconds / rows * 1e6:.0f} µs a row); peak PSS {cost.pss_mb:.0f} MiB; others used "
                    f"{max(cost.busy_seconds - cost.cpu_seconds, 0):.0f} s of CPU meanwhile",
                    flush=True,
                )
            shutil.rmtree(output)


if __name__ == "__main__":
    main()
