"""Rows of writing, publishing, finding and deleting."""

from __future__ import annotations

import hashlib
import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from bucket_rows.bench import Bench, Figures, row
from support.committed import commit_run

_PUBLISH = """
from beamlabel.pipeline.output.publish import publish
from beamlabel.transforms import storage
storage.exists(sys.argv[1] + "/warm")
begin()
publish(*sys.argv[1:])
end()
"""

_LAUNCH = """
from beamlabel.pipeline.job.preflight import check_output
from beamlabel.pipeline.output.publish import finish_pending, submitted
from beamlabel.transforms import storage
output = sys.argv[1]
storage.exists(output + "/warm")
begin()
finish_pending(output)
check_output(output, "resume")
submitted(output)
end()
"""

_OUTCOME = """
import json
from beamlabel.pipeline.output import outcome
from beamlabel.transforms import storage
manifest = json.loads(storage.read_bytes(sys.argv[1]))
outcome._SECONDS = 600.0  # the count must not depend on the machine
begin()
outcome.report(manifest)
end()
"""

_INDEX = """
import re, resource, subprocess, time
from pathlib import Path
from beamlabel.transforms import storage
from beamlabel.transforms.inputs.key_index import KeyIndex
from beamlabel.transforms.storage.host_cache import open_artifact

def memory():
    return int(re.search(r"VmHWM:\\s+(\\d+) kB", Path("/proc/self/status").read_text())[1]) / 1e3

path, sha256, others = sys.argv[1:]
storage.exists(path.rpartition("/")[0] + "/warm")
before = memory()
if others:
    begin()
used = time.process_time()
index = KeyIndex(open_artifact(path, sha256).content)
bytes(16) in index
used, grown = time.process_time() - used, memory() - before
if others:
    tell(grown, "MB more memory")
    program = sys.orig_argv[sys.orig_argv.index("-c") + 1]
    command = [sys.executable, "-c", program, path, sha256, ""]
    for line in subprocess.run(command, capture_output=True, check=True, text=True).stdout.splitlines():
        print(line, flush=True)
    end()
else:
    tell(grown, "MB more memory of a second process")
    tell(used * 1e3, "ms of CPU of a second process")
"""

_TYPES = """
from beamlabel.transforms import storage
begin()
for name in "_report.html _MANIFEST.json part-0.parquet _failures/part-0.jsonl wrong.csv _schema.pbtxt".split():
    storage.write_bytes(sys.argv[1] + "/" + name, b"data")
end()
"""


def _shards(bench: Bench) -> list[str]:
    return [name for name in bench.bucket.list("out/") if name.startswith("out/part-")]


@row("publishing 10,000 shards")
def publish(bench: Bench) -> Figures:
    """From the commit to the deletion of the staging directory."""
    shards = bench.sized(10_000)
    directory = commit_run(bench.bucket, shards)
    figures = bench.python(_PUBLISH, bench.bucket.uri("out"), directory)
    assert len(_shards(bench)) == shards
    return {"shards": shards, **figures}


@row("publishing one shard in place of 10,000")
def replace(bench: Bench) -> Figures:
    """``--if_exists overwrite``: the shards of the earlier run are deleted."""
    shards = bench.sized(10_000)
    directory = commit_run(bench.bucket, shards)
    bench.python(_PUBLISH, bench.bucket.uri("out"), directory)
    directory = commit_run(bench.bucket, 1, run="20260102T000000Z-abcdef")
    figures = bench.python(_PUBLISH, bench.bucket.uri("out"), directory)
    assert len(_shards(bench)) == 1
    return {"shards": shards, **figures}


@row("a launch where a killed run has staged 10,000 shards, until the state is known")
def launch(bench: Bench) -> Figures:
    """The work before any option is checked, with ``--if_exists resume``."""
    shards = bench.sized(10_000)
    directory = commit_run(bench.bucket, shards).removeprefix(f"{bench.bucket.url}/")
    bench.bucket.remove(f"{directory}/commit.json")
    return {"shards": shards, **bench.python(_LAUNCH, bench.bucket.uri("out"))}


@row("the end of a run of 64 shards, until its labels and failures are logged")
def outcome(bench: Bench) -> Figures:
    """A run without ``--report``: labels are counted in the shards, examples of failures are read."""
    return _outcome(bench, with_report=False)


@row("the same with --report")
def outcome_with_report(bench: Bench) -> Figures:
    """Labels and examples come from the page, of 2 MB at most."""
    return _outcome(bench, with_report=True)


def _outcome(bench: Bench, *, with_report: bool) -> Figures:
    shards = bench.sized(64)
    rows = 1_000
    table = pa.table(
        {
            "label": [f"label {n % 50}" for n in range(rows)],
            "embedding": pa.FixedSizeListArray.from_arrays(
                np.random.default_rng(0).random(rows * 1_280, np.float32), 1_280
            ),
        }
    )
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, row_group_size=400)  # about 2 MB, as the job writes them
    shard = sink.getvalue().to_pybytes()
    failure = {"uri": "gs://photos/a.jpg", "ref_id": "l#1", "reason": "truncated", "detail": "ends early"}
    lines = f"{json.dumps(failure)}\n".encode()
    kinds = {
        "data": ("part-r-{:05d}.parquet", shard, rows),
        "failures": ("_failures/part-r-{:05d}.jsonl", lines, 1),
    }
    files = []
    for kind, (name, content, count) in kinds.items():
        for number in range(shards):
            bench.bucket.put(f"out/{name.format(number)}", content)
            entry = {"name": name.format(number), "kind": kind, "rows": count, "bytes": len(content)}
            files.append(entry)
    # Three reasons in the manifest and one in the files: all files of failures are read.
    reasons = {"truncated": shards, "corrupt": 1, "not_found": 1}
    predicted, failed = shards * rows, shards + 2
    page = {
        "run": {"id": "r"},
        "labels": {"shown": [[f"label {n}", predicted // 50] for n in range(50)]},
        "failures": [{"reason": "truncated", "examples": [failure]}],
    }
    bench.bucket.put(
        "out/_report.html",
        f'<script id="data" type="application/json">{json.dumps(page)}</script>{" " * 500_000}'.encode(),
    )
    manifest = {
        "run_id": "r",
        "output": bench.bucket.uri("out"),
        "seconds": 1.0,
        "rows": {"input": predicted + failed, "predicted": predicted, "failed": failed, "skipped": 0},
        "failed_by_reason": reasons,
        "skipped_by_reason": {},
        "error_rate": failed / (predicted + failed),
        "within_error_rate": True,
        "options": {"max_error_rate": 0.05, "report": with_report},
        "metadata": {"beamlabel.num_classes": "1000"},
        "files": files,
    }
    path = bench.bucket.put("out/_MANIFEST.json", json.dumps(manifest).encode())
    return {"shards": shards, **bench.python(_OUTCOME, path)}


@row("an index of 20 million earlier rows, opened by two processes of a host")
def index(bench: Bench) -> Figures:
    """An index of 16 bytes a row."""
    rows = bench.sized(20_000_000)
    keys = np.random.default_rng(0).bytes(16 * rows)
    path = bench.bucket.put("staging/labeled.keys", keys)
    return {"rows": rows, **bench.python(_INDEX, path, hashlib.sha256(keys).hexdigest(), "others")}


@row("content types of six files")
def content_types(bench: Bench) -> Figures:
    """Content types as the server receives them."""
    bench.bucket.server.upload_types.clear()
    bench.python(_TYPES, bench.bucket.uri("out"))
    told = bench.bucket.server.upload_types
    right = [
        "text/html; charset=utf-8",
        "application/json",
        "application/vnd.apache.parquet",
        "application/x-ndjson",
        "text/csv; charset=utf-8",
        "text/plain; charset=utf-8",
    ]
    return {"right": sum(one == other for one, other in zip(told, right, strict=True))}
