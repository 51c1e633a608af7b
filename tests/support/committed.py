"""A committed, unpublished run with shards of a few bytes, for tests of requests to a bucket."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any


class Directory:
    """A local directory with the helpers of a bucket."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def put(self, name: str, data: bytes) -> None:
        """Writes a file."""
        (self.path / name).parent.mkdir(parents=True, exist_ok=True)
        (self.path / name).write_bytes(data)

    def uri(self, name: str) -> str:
        """The path of a file."""
        return str(self.path / name)

    def content(self) -> dict[str, bytes]:
        """The content of the files by name."""
        files = (path for path in self.path.rglob("*") if path.is_file())
        return {str(path.relative_to(self.path)): path.read_bytes() for path in files}


METADATA = {"beamlabel.module_fingerprint": "f", "beamlabel.schema_version": "2"}


def commit_run(bucket: Any, shards: int, *, run: str = "20260101T000000Z-abcdef", output: str = "out") -> str:
    """Stages a run below ``output`` in a bucket without the code under test; returns its staging directory's URI.

    Args:
        bucket: An object with ``put`` and ``uri``.
        shards: The number of shards, each of one row; a shard's content is its number.
        run: The run's id.
        output: A directory in the bucket.
    """
    directory = f"{output}/_beamlabel/staging/0123456789abcdef"
    records = []
    for number in range(shards):
        unit = f"00000-{number:012d}"
        sha256 = hashlib.sha256(b"%d" % number).hexdigest()
        name = f"shards/{unit}-{sha256[:16]}.parquet"
        bucket.put(f"{directory}/{name}", b"%d" % number)
        file = {"name": name, "kind": "data", "rows": 1, "bytes": len(str(number)), "sha256": sha256}
        place = {"input_path": "/in/list.txt", "start": number, "stop": number + 1, "file_rows": None}
        records.append(
            {
                "unit_id": unit,
                "ranges": [{**place, "last": number == shards - 1}],
                "input": 1,
                "predicted": 1,
                "failed": {},
                "skipped": 0,
                "files": [file],
            }
        )
        bucket.put(f"{directory}/units/{unit}.json", json.dumps(records[-1]).encode())
    manifest = {
        "run_id": run,
        "plan_id": "0123456789abcdef",
        "metadata": METADATA,
        "options": {"max_error_rate": 0.0, "report": False},
        "input_files": [],
        "module": {"fingerprint": "f"},
    }
    job = {
        "format": "beamlabel job",
        "run_id": run,
        "started_at": 1.0,
        "max_error_rate": 0.0,
        "schema_pbtxt": None,
        "manifest": manifest,
    }
    commit = {"format": "beamlabel commit", "committed_at": 2.0, "records": records}
    bucket.put(f"{directory}/job.json", json.dumps(job).encode())
    bucket.put(f"{directory}/commit.json", json.dumps(commit).encode())
    return str(bucket.uri(directory))
