"""Reuses the finished units of an earlier run with the same plan.

A killed run leaves the records of its units in its staging directory, where ``OpenUnit`` finds them. A published run
can be resumed if it ran out of time, or if its input is a listing that may have grown. Its records are in
``units.json``. Its files are copied back to the staging directory, so that readers keep the published ones until the
next exist.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from beamlabel.pipeline import layout
from beamlabel.pipeline.output import staging
from beamlabel.pipeline.output.manifest import read_manifest
from beamlabel.pipeline.output.own_json import UNITS, read_json
from beamlabel.pipeline.output.staged_content import is_changed
from beamlabel.transforms import storage
from beamlabel.transforms.records import UnitRecord
from beamlabel.transforms.shapes import parse
from beamlabel.transforms.storage.inside import below
from beamlabel.transforms.units.unit_records import stage_record

_THREADS = 64
"""Records that are read or written at the same time, each in one request."""


def finished_manifest(output: str, plan_id: str) -> dict[str, Any] | None:
    """The manifest of the output if a run has published all of this plan, so that nothing is left to do."""
    manifest = read_manifest(output)
    if manifest is None or manifest["plan_id"] != plan_id or not manifest.get("complete"):
        return None
    return None if storage.exists(storage.join(staging.inside(output), layout.UNITS)) else manifest


def reuse_finished_units(output: str, staging_dir: str, plan_id: str) -> int:
    """Checks the units that killed runs of this plan have staged, and stages the published ones again.

    Returns:
      The number of staged units.
    """
    # ``finish_pending`` has left no commit. A later one comes from an abandoned run, and is void.
    for name in (layout.COMMIT, layout.MOVES):
        storage.delete(storage.join(staging_dir, name))
    staged = _sound_units(staging_dir)
    path = storage.join(staging.inside(output), layout.UNITS)
    manifest = read_manifest(output)
    if manifest is not None and manifest["plan_id"] == plan_id and storage.exists(path):
        published = {file["staged_as"]: file["name"] for file in manifest["files"]}
        records = [UnitRecord.from_json(record) for record in read_json(path, UNITS)["records"]]
        whole = [again for record in records if (again := _staged_again(record, published)) is not None]
        storage.copy_all(
            {
                below(output, published[file.name]): below(staging_dir, file.name)
                for record in whole
                for file in record.files
            }
        )
        with ThreadPoolExecutor(_THREADS) as threads:
            list(threads.map(lambda record: stage_record(record, staging_dir), whole))
        staged |= {record.unit_id for record in whole}
    return len(staged)


def _staged_again(record: UnitRecord, published: Mapping[str, str]) -> UnitRecord | None:
    """The record of a unit with published files, to be staged again; None if some of its files were not published.

    The record holds no summaries, which the report derives again from the shards, and no empty shards.
    """
    files = [file for file in record.files if file.kind != "summary"]
    files = [file for file in files if file.name in published or file.kind != "data" or file.rows]
    if not all(file.name in published for file in files):
        return None
    return dataclasses.replace(record, files=tuple(files))


def _sound_units(staging_dir: str) -> set[str]:
    """The units whose records and files are intact; records of others are deleted, so that they are done again."""
    sizes = {file.path: file.size for file in storage.match(storage.escape(staging_dir) + "/")}
    directory = storage.join(staging_dir, layout.UNIT_RECORDS) + "/"
    is_local = storage.is_local(staging_dir)

    def sound(path: str) -> str | None:
        try:
            record = UnitRecord.from_json(parse(storage.read_bytes(path)))
            files = {below(staging_dir, file.name): file.bytes for file in record.files}
            if path != below(staging_dir, f"{layout.UNIT_RECORDS}/{record.unit_id}.json"):
                raise ValueError(f"{path} is the record of {record.unit_id}")
        except (ValueError, KeyError, TypeError):
            record, files = None, {}
        is_there = record is not None and all(sizes.get(name) == size for name, size in files.items())
        if (
            record is None
            or not is_there
            or (is_local and any(is_changed(staging_dir, f) for f in record.files))
        ):
            storage.delete(path)
            return None
        return record.unit_id

    with ThreadPoolExecutor(_THREADS) as threads:
        return set(filter(None, threads.map(sound, [path for path in sizes if path.startswith(directory)])))
