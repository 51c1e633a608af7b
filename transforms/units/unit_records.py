"""The records of finished units in a staging directory."""

from __future__ import annotations

import json

from beamlabel.transforms import storage
from beamlabel.transforms.records import UnitRecord
from beamlabel.transforms.shapes import parse
from beamlabel.transforms.storage.inside import below


def stage_record(record: UnitRecord, staging_dir: str) -> UnitRecord:
    """Records a unit as finished, after its files are staged; returns the valid record, which is the first one.

    Raises:
      OSError: the staging directory cannot be written, or is gone.
    """
    content = json.dumps(record.to_json()).encode()
    if storage.create_if_absent(_record_path(staging_dir, record.unit_id), content):
        return record
    first = read_record(staging_dir, record.unit_id)
    if first is None:
        raise OSError(f"the record of unit {record.unit_id} was in {staging_dir} but is gone")
    return first


def read_record(staging_dir: str, unit_id: str) -> UnitRecord | None:
    """The record of a finished unit, else None."""
    try:
        content = storage.read_bytes(_record_path(staging_dir, unit_id))
    except FileNotFoundError:
        return None
    record = UnitRecord.from_json(parse(content))
    if record.unit_id != unit_id:
        raise ValueError(f"{staging_dir}: the record of unit {unit_id} names another unit, {record.unit_id}")
    for file in record.files:
        below(staging_dir, file.name)
    return record


def _record_path(staging_dir: str, unit_id: str) -> str:
    return below(staging_dir, f"units/{unit_id}.json")
