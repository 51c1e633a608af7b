"""The night before a run: the newest earlier output that the run skips, or that differs from it in the date only."""

from __future__ import annotations

import itertools
import json
from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from beamlabel.pipeline import layout
from beamlabel.pipeline.published import manifests
from beamlabel.pipeline.report.data import data_of_page
from beamlabel.pipeline.report.drift import embedding_drift, label_drift
from beamlabel.transforms import storage
from beamlabel.transforms.rows import metadata_keys
from beamlabel.transforms.secrets.logs import get_logger
from beamlabel.transforms.storage.inside import below
from beamlabel.transforms.storage.listing.stored_file import StoredFile
from beamlabel.transforms.storage.patterns import escape

_LOGGER = get_logger("beamlabel")

# Manifests to read. The newest files belong to the last nights, unless an old night has run again.
_CANDIDATES = 8
# Failures per night; a night with more is not compared image by image.
_MAX_FAILURES = 100_000
_BATCH_ROWS = 65_536


def night_before(
    directory: str, manifest: Mapping[str, Any], data: Mapping[str, Any]
) -> dict[str, Any] | None:
    """Compares the run with the night before: counts, failures, labels and mean embedding.

    Reads no row of that night: the labels and the mean embedding come from that night's report.

    Args:
      directory: the directory of the run's files.
      manifest: the run's manifest.
      data: data of the run's report.

    Returns:
      None if there is no night before, or if it cannot be read; then the log has a warning.
    """
    try:
        earlier = _newest_earlier(manifest)
        return None if earlier is None else _compared(directory, manifest, data, *earlier)
    except Exception:  # the report is useful without this part
        _LOGGER.warning("Could not read the earlier output, so the report has no comparison", exc_info=True)
        return None


def _newest_earlier(manifest: Mapping[str, Any]) -> tuple[str, dict[str, Any]] | None:
    """The directory and the manifest of the last run that began before this one."""
    options, output = manifest["options"], manifest["output"]
    patterns = list(options.get("skip_labeled") or ())
    date = options.get("run_date")
    if date and date in output:
        patterns.append("*".join(escape(part) for part in output.split(date)))
    files: dict[str, StoredFile] = {}
    for pattern in patterns:
        files |= {file.path: file for file in manifests(pattern)}
    files.pop(storage.join(output, layout.MANIFEST), None)
    found = []
    for path in sorted(files, key=lambda path: _written(files[path]), reverse=True)[:_CANDIDATES]:
        earlier = json.loads(storage.read_bytes(path))
        if earlier["started_at"] < manifest["started_at"] and "compacted" not in earlier:
            found.append((earlier["started_at"], path.rpartition("/")[0], earlier))
    return max(found)[1:] if found else None


def _written(file: StoredFile) -> tuple[int, str, str]:
    """A sort key by the time of writing: versions are times, as digits or as text."""
    version = file.version or ""
    return (int(version) if version.isdecimal() else 0, version, file.path)


def _compared(
    directory: str,
    manifest: Mapping[str, Any],
    data: Mapping[str, Any],
    there: str,
    earlier: Mapping[str, Any],
) -> dict[str, Any]:
    page = storage.join(there, layout.REPORT)
    told = data_of_page(storage.read_bytes(page).decode()) if storage.exists(page) else None
    if told is not None and told["run"]["id"] != earlier["run_id"]:
        told = None
    names = (metadata_keys.MODULE_FINGERPRINT, metadata_keys.PREPROCESSING_ID)
    labels_before: dict[str, int] = (told or {}).get("distribution") or {}
    labels_now: dict[str, int] = data["distribution"] or {}
    has_labels = bool(labels_before and labels_now)
    return {
        "output": there,
        "started_at": earlier["started_at"],
        "rows": earlier["rows"],
        "error_rate": earlier["error_rate"],
        "failed_by_reason": earlier["failed_by_reason"],
        "has_report": told is not None,
        "same_module": all(earlier["metadata"].get(n) == manifest["metadata"].get(n) for n in names),
        "failures": _failures(directory, manifest, there, earlier),
        "label_drift": label_drift(labels_before, labels_now) if has_labels else None,
        # The denominators of the labels' shares.
        "labeled": [sum(labels_before.values()), sum(labels_now.values())] if has_labels else None,
        "embedding_drift": _embeddings(told, data),
    }


def _embeddings(told: Mapping[str, Any] | None, data: Mapping[str, Any]) -> dict[str, Any] | None:
    before, now = None if told is None else told.get("mean_embedding"), data["mean_embedding"]
    if not before or not now:
        return None
    if before["space"] != now["space"]:
        return {
            "comparable": False,
            "why_not": "the module, preprocessing or normalization differs",
        }
    return {
        "comparable": True,
        "why_not": None,
        **embedding_drift(np.array(before["values"]), np.array(now["values"])),
    }


def _failures(
    directory: str, manifest: Mapping[str, Any], there: str, earlier: Mapping[str, Any]
) -> dict[str, int] | None:
    """Counts images by the nights in which they failed.

    Returns:
      ``came``: failed only now; ``again``: failed in both nights; ``went``: failed before and have a row now. None if a
      night has more than ``_MAX_FAILURES`` failures.
    """
    if max(manifest["rows"]["failed"], earlier["rows"]["failed"]) > _MAX_FAILURES:
        return None
    now, before = _failed(directory, manifest), _failed(there, earlier)
    return {
        "came": len(now - before),
        "again": len(now & before),
        "went": _labeled(directory, manifest, before - now),
    }


def _failed(directory: str, manifest: Mapping[str, Any]) -> set[str]:
    found: set[str | None] = set()
    for file in manifest["files"]:
        if file["kind"] == "failures":
            with storage.open_input(below(directory, file["name"])) as lines:
                found.update(json.loads(line).get("image_id") for line in lines)
    return {identity for identity in found if identity is not None}


def _labeled(directory: str, manifest: Mapping[str, Any], wanted: set[str]) -> int:
    """The number of ``wanted`` images that have a row."""
    if not wanted:
        return 0
    values, count = pa.array(sorted(wanted), pa.string()), 0
    for file in manifest["files"]:
        if file["kind"] != "data":
            continue
        for ids in _ids(below(directory, file["name"])):
            count += pc.sum(pc.is_in(ids, value_set=values)).as_py() or 0
    return count


def _ids(path: str) -> Any:
    with storage.open_input(path) as source:
        if not path.endswith(".parquet"):
            from beamlabel.transforms.rows.tf_examples import decode
            from beamlabel.transforms.rows.tfrecord import read_records

            records = read_records(source)
            while chunk := list(itertools.islice(records, 512)):
                yield pa.array(
                    [(row["image_id"] or [b""])[0].decode() for row in decode(chunk, ["image_id"])],
                    pa.string(),
                )
            return
        with pq.ParquetFile(source, pre_buffer=False) as parquet:
            for batch in parquet.iter_batches(_BATCH_ROWS, columns=["image_id"]):
                yield batch.column("image_id")
