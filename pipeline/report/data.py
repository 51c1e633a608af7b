"""A manifest and the units' summaries → what the report shows, as plain values for JSON."""

from __future__ import annotations

import itertools
import json
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any

from beamlabel.pipeline.report.run_sample import RunSample
from beamlabel.transforms import storage
from beamlabel.transforms.decoding.thumbnail import MAX_BYTES
from beamlabel.transforms.rows import schema
from beamlabel.transforms.secrets.text import public_values
from beamlabel.transforms.shapes import TEXT, ShapeError, check, optional, parse
from beamlabel.transforms.writing.unit_summary import (
    EMBEDDING_STEPS,
    UnitSummary,
    merge_examples,
    score_bins,
)

MAX_LABELS = 200
"""Labels in the histogram, the most frequent ones; the others are one number."""

# What is larger is left out of the page, and then two nights are not compared by it.
_COMPARED_BYTES = 150_000

_SPACE = (
    schema.MODULE_FINGERPRINT,
    schema.PREPROCESSING_ID,
    schema.EMBEDDING_DIM,
    schema.EMBEDDING_NORMALIZED,
)

# The page stays below 2 MB, whatever the texts are: the sample has what the rest of its data leaves.
_PAGE_BYTES = 1_995_000
_FRAME_BYTES = 60_000
_THUMBNAIL_BYTES = -(-MAX_BYTES // 3) * 4
_DATA = re.compile(r'<script id="data" type="application/json">(.*?)</script>', re.DOTALL)
# In JSON these stand in strings only, where an escape means the same.
_ESCAPES = {ord(character): f"\\u{ord(character):04x}" for character in "<>&\u2028\u2029"}
# What is read back of it.
_REPORT = {
    "run": {"id": TEXT, "plan_id?": optional(TEXT)},
    "sample": [{"ref_id": TEXT, "thumbnail": optional(TEXT)}],
}
_MAX_BINS = 60
_MIN_BIN_SECONDS = 0.5
# A worker's clock may be behind; what ended earlier than that was done by an earlier try of the run.
_CLOCK_SECONDS = 60.0


def report_data(manifest: Mapping[str, Any], summaries: Iterable[UnitSummary]) -> dict[str, Any]:
    """Merges the summaries; in memory is one at a time, and a bounded number of rows.

    Args:
      manifest: ``_MANIFEST.json``.
      summaries: one a unit, in the order of the units: the same ones give the same report.
    """
    labels: Counter[str] = Counter()
    scores: Counter[float] = Counter()
    examples: dict[str, list[dict[str, str | None]]] = {}
    sample = RunSample(manifest["metadata"])
    embeddings: list[int] | None = None
    for summary in summaries:
        labels.update(summary.labels)
        scores.update(dict(summary.scores))
        merge_examples(examples, summary.failures)
        if summary.embedding_sum is not None:
            embeddings = [
                a + b for a, b in zip(embeddings or itertools.repeat(0), summary.embedding_sum, strict=False)
            ]
        sample.add(summary)
    function = manifest["metadata"].get(schema.SCORES)
    probabilities = function in ("softmax", "sigmoid") or all(0 <= score <= 1 for score in scores)
    ordered = sorted(labels.items(), key=lambda item: (-item[1], item[0]))
    data = {
        "run": _run(manifest),
        "rows": manifest["rows"],
        "skipped": manifest.get("skipped_by_reason", {}),
        "deleted": manifest.get("deleted", 0),
        "relabeled": manifest.get("rows_relabeled", 0),
        "timeline": timeline(manifest),
        "labels": {
            "shown": ordered[:MAX_LABELS],
            "others": len(ordered[MAX_LABELS:]),
            "rows_of_others": sum(count for _, count in ordered[MAX_LABELS:]),
        },
        # For the report of the next night to compare with.
        "distribution": _if_small(dict(ordered)),
        "mean_embedding": _if_small(_mean(embeddings, manifest)),
        "scores": score_bins(scores, probabilities=probabilities),
        "failures": [
            {"reason": reason, "count": count, "examples": examples.get(reason, [])}
            for reason, count in sorted(
                manifest["failed_by_reason"].items(), key=lambda item: (-item[1], item[0])
            )
        ],
    }
    rows, compared = sample.rows(labels)
    has_names = schema.LABELS_SHA256 in manifest["metadata"]
    data |= {"compared": compared, "has_names": has_names, "several": function == "sigmoid"}
    room = _PAGE_BYTES - _FRAME_BYTES - len(embedded_json(data).encode())
    return {**data, "sample": _fitting(rows, room)}


def _if_small(value: dict[str, Any] | None) -> dict[str, Any] | None:
    return value if len(embedded_json(value).encode()) <= _COMPARED_BYTES else None


def _mean(total: list[int] | None, manifest: Mapping[str, Any]) -> dict[str, Any] | None:
    """The mean embedding, and what tells with which others it may be compared."""
    rows = manifest["rows"]["predicted"]
    if total is None or not rows:
        return None
    values = [float(f"{number / EMBEDDING_STEPS / rows:.6g}") for number in total]
    return {"space": [manifest["metadata"].get(name) for name in _SPACE], "values": values}


def _run(manifest: Mapping[str, Any]) -> dict[str, Any]:
    computed_by = {file["computed_by"] for file in manifest["files"] if file.get("computed_by")}
    return {
        "id": manifest["run_id"],
        "plan_id": manifest.get("plan_id"),
        "output": manifest["output"],
        "module": manifest["metadata"].get(schema.MODULE_HANDLE, ""),
        "version": manifest["metadata"].get(schema.VERSION, ""),
        "computed_by": ", ".join(sorted(computed_by)),
        "started_at": manifest["started_at"],
        "committed_at": manifest["committed_at"],
        "seconds": manifest["seconds"],
        "error_rate": manifest["error_rate"],
        "max_error_rate": manifest["options"]["max_error_rate"],
        "within_error_rate": manifest["within_error_rate"],
        "within_deleted_rate": manifest.get("within_deleted_rate", True),
        "complete": manifest.get("complete", True),
    }


def _fitting(rows: list[dict[str, Any]], room: int) -> list[dict[str, Any]]:
    """As many of the rows as the page has room for, which is all of them unless they are made to be large.

    Every row counts as if it had a large thumbnail, so that the same rows fit with and without.
    """
    texts = (len(embedded_json({**row, "thumbnail": None}).encode()) for row in rows)
    sizes = itertools.accumulate(text + _THUMBNAIL_BYTES for text in texts)
    return [row for row, size in zip(rows, sizes, strict=True) if size <= room]


def embedded_json(value: object) -> str:
    """JSON that may stand in a script element: ``<``, ``>`` and ``&`` are escaped, and so are odd line ends."""
    return json.dumps(public_values(value), ensure_ascii=False, separators=(",", ":")).translate(_ESCAPES)


def data_of_page(text: str) -> dict[str, Any] | None:
    """The data that a page was made of, of whatever kind; None if there are none, or somebody has damaged them."""
    found = _DATA.search(text)
    try:
        data: dict[str, Any] | None = parse(found[1]) if found else None
    except ShapeError:
        return None
    return data


def kept_thumbnails(path: str, *, run_id: str | None = None, plan_id: str | None = None) -> dict[str, str]:
    """Reference → JPEG in base64, out of the page that is there, if it is of this run, or of a run of this plan."""
    if not storage.exists(path):
        return {}
    data = data_of_page(storage.read_bytes(path).decode(errors="replace"))
    try:
        check(data, _REPORT)
    except ShapeError:  # none, or not that of a report
        return {}
    assert data is not None
    run = data["run"]
    is_same = run["id"] == run_id or (plan_id is not None and run.get("plan_id") == plan_id)
    if not is_same:
        return {}
    return {row["ref_id"]: row["thumbnail"] for row in data["sample"] if row["thumbnail"]}


def timeline(manifest: Mapping[str, Any]) -> dict[str, Any] | None:
    """Images done in equal spans of the run: ``bin_seconds``, ``counts``, and how many were done ``before``.

    The images of a unit are spread evenly from when its sink saw the first to when it saw the last. None
    where the manifest's files tell no times.
    """
    start, end = (_seconds(manifest[name]) for name in ("started_at", "committed_at"))
    bins = max(1, min(_MAX_BINS, int((end - start) / _MIN_BIN_SECONDS)))
    width = max(end - start, 1e-3) / bins
    counts, before, known = [0.0] * bins, 0, False
    for file in manifest["files"]:
        if file.get("started_at") is None or file.get("finished_at") is None:
            continue
        known = True
        first, last = _seconds(file["started_at"]), _seconds(file["finished_at"])
        if last < start - _CLOCK_SECONDS:
            before += file["rows"]
            continue
        low, high = ((min(max(at, start), end) - start) / width for at in (first, last))
        _spread(counts, file["rows"], low, high)
    if not known:
        return None
    return {"bin_seconds": width, "counts": [round(count, 2) for count in counts], "before": before}


def _spread(counts: list[float], rows: int, low: float, high: float) -> None:
    """Adds ``rows`` to the bins between ``low`` and ``high``, in bins."""
    last = len(counts) - 1
    if high - low < 1e-9:
        counts[min(int(low), last)] += rows
        return
    for place in range(int(low), min(int(high), last) + 1):
        counts[place] += rows * max(min(high, place + 1) - max(low, place), 0) / (high - low)


def _seconds(iso: str) -> float:
    return datetime.fromisoformat(iso).timestamp()
