"""Rows: what is written, published, found again and deleted."""

from __future__ import annotations

import json

from bucket_rows.bench import Bench, Figures, row

_PUBLISH = """
from beamlabel.pipeline.output.publish import publish
from beamlabel.transforms import storage
storage.exists(sys.argv[1] + "/warm")
begin()
publish(*sys.argv[1:])
end()
"""

_METADATA = {"beamlabel.module_fingerprint": "f", "beamlabel.schema_version": "2"}


def _commit_run(bench: Bench, shards: int) -> tuple[str, str]:
    """A run that is committed and not published, of empty shards; its output and its staging folder."""
    run, folder = "20260101T000000Z-abcdef", "out/_beamlabel/staging/0123456789abcdef"
    records = []
    for number in range(shards):
        unit = f"00000-{number:012d}"
        name = f"shards/{unit}-{number:016x}.parquet"
        bench.bucket.put(f"{folder}/{name}", b"%d" % number)
        file = {"name": name, "kind": "data", "rows": 1, "bytes": len(str(number)), "sha256": "0" * 64}
        records.append(
            {"unit_id": unit, "input": 1, "predicted": 1, "skipped": 0, "failed": {}, "files": [file],
             "ranges": [{"input_path": "/in/list.txt", "start": number, "stop": number + 1,
                         "last": number == shards - 1, "file_rows": None}]}
        )  # fmt: skip
        bench.bucket.put(f"{folder}/units/{unit}.json", json.dumps(records[-1]).encode())
    manifest = {
        "run_id": run, "plan_id": "0123456789abcdef", "metadata": _METADATA, "options": {"max_error_rate": 0.0},
        "input_files": [], "module": {"fingerprint": "f"},
    }  # fmt: skip
    job = {
        "format": "beamlabel job", "run_id": run, "started_at": 1.0, "max_error_rate": 0.0, "schema_pbtxt": None,
        "manifest": manifest,
    }  # fmt: skip
    commit = {"format": "beamlabel commit", "committed_at": 2.0, "records": records}
    bench.bucket.put(f"{folder}/job.json", json.dumps(job).encode())
    bench.bucket.put(f"{folder}/commit.json", json.dumps(commit).encode())
    return bench.bucket.uri("out"), bench.bucket.uri(folder)


@row("publishing 10,000 shards")
def publish(bench: Bench) -> Figures:
    """From the commit to the deleted staging."""
    shards = bench.sized(10_000)
    output, folder = _commit_run(bench, shards)
    figures = bench.python(_PUBLISH, output, folder)
    names = [name for name in bench.bucket.list("out/") if name.startswith("out/part-")]
    assert len(names) == shards, len(names)
    return {"shards": shards, **figures}
