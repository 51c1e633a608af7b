"""Tombstones as a run writes them that compares the listing with earlier outputs."""

import datetime as dt
import hashlib
import json
from collections.abc import Iterable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from beamlabel.transforms.storage.identity import image_id

SCHEMA = pa.schema(
    [
        pa.field("image_id", pa.string(), nullable=False),
        pa.field("uri", pa.string(), nullable=False),
        pa.field("ref_id", pa.string()),
        pa.field("deleted_at", pa.timestamp("us", "UTC"), nullable=False),
        pa.field("run_id", pa.string(), nullable=False),
    ]
)


def add_tombstones(output: Path, uris: Iterable[str]) -> None:
    """Adds tombstones to a published output: the images were gone when its run began."""
    path = output / "_MANIFEST.json"
    manifest = json.loads(path.read_text())
    began = dt.datetime.fromisoformat(manifest["started_at"])
    rows = [
        {
            "image_id": image_id(uri),
            "uri": uri,
            "ref_id": None,
            "deleted_at": began,
            "run_id": manifest["run_id"],
        }
        for uri in uris
    ]
    name = f"_deleted/part-{manifest['run_id']}-00000.parquet"
    (output / "_deleted").mkdir()
    pq.write_table(pa.Table.from_pylist(rows, SCHEMA), output / name)
    data = (output / name).read_bytes()
    digest = hashlib.sha256(data).hexdigest()
    manifest["files"].append(
        {
            "name": name,
            "kind": "deleted",
            "rows": len(rows),
            "bytes": len(data),
            "sha256": digest,
            "staged_as": name,
        }
    )
    path.write_text(json.dumps(manifest))
