"""The cost of --skip_labeled with millions of earlier rows: ``python benchmarks/earlier.py``.

Earlier nights are written as shards of 10,000 rows, with all the columns of a real shard. The input of the job is the
last of their images and some new ones; its engine computes nothing (``stub_job.py``). It runs with and without
``--skip_labeled``, in turns: the difference in the peak of PSS is the cost of the index.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from jobs import label, run
from measure import Cost
from memory import STUB, tiny
from photos import write_list

from beamlabel.transforms.storage.identity import image_id

SHARD_ROWS = 10_000


def earlier_shards(directory: Path, example: Path, uris: Sequence[str], rows: int) -> None:
    """Writes ``rows`` rows as the job would: those of ``uris``, and of other URIs.

    Args:
      directory: directory for the shards.
      example: a shard of the job, which gives the schema, metadata and values.
      uris: URIs of the last rows.
      rows: number of rows in all.
    """
    row = pq.read_table(example).slice(0, 1)
    directory.mkdir()
    for start in range(0, rows, SHARD_ROWS):
        count = min(SHARD_ROWS, rows - start)
        names = [
            uris[number - rows] if number >= rows - len(uris) else f"gs://photos/2026/{number:09d}.jpg"
            for number in range(start, start + count)
        ]
        many = row.take(pa.array([0] * count))
        values = {"uri": names, "ref_id": names, "image_id": list(map(image_id, names))}
        for name, column in values.items():
            many = many.set_column(
                many.schema.get_field_index(name), row.schema.field(name), pa.array(column)
            )
        pq.write_table(many, directory / f"part-{start:09d}.parquet", compression="zstd")


def skipping(
    list_: Path, arguments: Sequence[str], scratch: Path, earlier: Path, new: int
) -> tuple[Cost, str]:
    """Returns the cost of a run that skips, and its log line on the earlier rows."""
    output = scratch / "out"
    command = [sys.executable, *STUB, "--input", list_, "--output", output, "--if_exists", "overwrite"]
    command += [*arguments, "--skip_labeled", f"{earlier}/"]
    cost = run(list(map(str, command)), scratch, repeat=False)
    rows = json.loads((output / "_MANIFEST.json").read_text())["rows"]
    if rows["predicted"] != new:
        raise RuntimeError(f"{new} new images, but the manifest says {rows}")
    log = (scratch / "log.txt").read_text()
    return cost, next(line for line in log.splitlines() if "images that earlier runs labeled" in line)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=5_000_000, help="earlier rows (default 5 million)")
    parser.add_argument("--images", type=int, default=20_000, help="images of the input (default 20,000)")
    parser.add_argument(
        "--new", type=int, default=5_000, help="number of new images among them (default 5,000)"
    )
    parser.add_argument("--rounds", type=int, default=3)
    options, arguments = parser.parse_known_args()
    print(f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}")
    with tempfile.TemporaryDirectory() as directory:
        scratch = Path(directory)
        images = tiny(scratch / "tiny", options.images)
        whole = write_list(scratch / "list.txt", images, options.images)
        only_new = write_list(scratch / "new.txt", images[: options.new], options.new)
        label(only_new, 1, scratch, arguments, program=STUB)
        example = next((scratch / "out").glob("part-*.parquet")).rename(scratch / "example.parquet")
        earlier_shards(scratch / "earlier", example, list(map(str, images[options.new :])), options.rows)
        with_rows, without = list[Cost](), list[Cost]()
        for _ in range(options.rounds):
            cost, told = skipping(whole, arguments, scratch, scratch / "earlier", options.new)
            with_rows.append(cost)
            without.append(label(only_new, options.new, scratch, arguments, program=STUB, repeat=False))
            print(told, flush=True)
    for name, costs in ((f"{options.rows:,} earlier rows", with_rows), ("none", without)):
        seconds, peak, cpu = (
            statistics.median(getattr(cost, what) for cost in costs)
            for what in ("seconds", "pss_mb", "cpu_seconds")
        )
        print(f"{name}: {seconds:.1f} s, {cpu:.1f} s of CPU, peak {peak:.0f} MiB")


if __name__ == "__main__":
    main()
