"""What a run that was cut off has finished, for one of the same plan to go on with.

A killed run leaves the records of its units in its staging folder, where ``OpenUnit`` finds them. One that ran out
of time was published; its records are in ``_INCOMPLETE.json``, and its files become staged ones again, as copies:
readers keep the published ones until the next are there.
"""

from __future__ import annotations

import dataclasses
import json
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from pipeline import layout
from pipeline.publish import read_manifest
from transforms import storage
from transforms.records import UnitRecord
from transforms.write_unit import stage_record, staged_units

_THREADS = 16


def finished(output: str, plan_id: str) -> dict[str, Any] | None:
    """The manifest of the output, where a run has published all of this plan; else None."""
    manifest = read_manifest(output)
    if manifest is None or manifest["plan_id"] != plan_id or not manifest["complete"]:
        return None
    return manifest


def adopt(output: str, staging_dir: str, plan_id: str) -> int:
    """Stages the units again that a run of this plan has published before its time was over.

    Returns:
      How many units are staged now, with those of runs that were killed.
    """
    path = storage.join(output, layout.INCOMPLETE)
    manifest = read_manifest(output)
    if manifest is not None and manifest["plan_id"] == plan_id and storage.exists(path):
        published = {file["staged_as"]: file["name"] for file in manifest["files"]}
        records = [UnitRecord.from_json(record) for record in json.loads(storage.read_bytes(path))["records"]]

        def stage_again(record: UnitRecord) -> None:
            # Summaries went into the report, which makes them anew of the shards.
            files = [file for file in record.files if file.kind != "summary"]
            # An empty shard is published only where there is nothing else: such a unit costs nothing to do again.
            if all(file.name in published for file in files):
                for file in files:
                    name = published[file.name]
                    storage.copy(storage.join(output, name), storage.join(staging_dir, file.name))
                stage_record(dataclasses.replace(record, files=tuple(files)), staging_dir)

        with ThreadPoolExecutor(_THREADS) as threads:
            list(threads.map(stage_again, records))
    return staged_units(staging_dir)
