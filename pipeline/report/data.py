"""Makes the report's data, plain values for JSON, from a manifest and the units' summaries."""

from __future__ import annotations

import itertools
import json
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any

from beamlabel.pipeline.report.failed_pictures import with_file
from beamlabel.pipeline.report.links import Links
from beamlabel.pipeline.report.run_sample import RunSample
from beamlabel.transforms import storage
from beamlabel.transforms.decoding.thumbnail import MAX_BYTES
from beamlabel.transforms.reasons import Reason
from beamlabel.transforms.rows import metadata_keys
from beamlabel.transforms.secrets.text import public_values
from beamlabel.transforms.shapes import TEXT, ShapeError, check, optional, parse
from beamlabel.transforms.storage.uris import encodable
from beamlabel.transforms.writing.unit_summary import (
    EMBEDDING_STEPS,
    MAX_TEXT,
    UnitSummary,
    merge_examples,
    score_bins,
)

MAX_LABELS = 200
"""Labels in the histogram, the most frequent ones; the others are summed up."""

# Bytes. Larger values are left out of the page, so the next night cannot compare them.
_COMPARED_BYTES = 150_000

_SPACE = (
    metadata_keys.MODULE_FINGERPRINT,
    metadata_keys.PREPROCESSING_ID,
    metadata_keys.EMBEDDING_DIM,
    metadata_keys.EMBEDDING_NORMALIZED,
)

# Bytes. The page stays below 2 MB with any texts: the sample gets the room that the other data leave.
_PAGE_BYTES = 1_995_000
_FRAME_BYTES = 60_000
_THUMBNAIL_BYTES = -(-MAX_BYTES // 3) * 4
_DATA = re.compile(r'<script id="data" type="application/json">(.*?)</script>', re.DOTALL)
# JSON has these characters only in strings, where an escape has the same meaning.
_ESCAPES = {ord(character): f"\\u{ord(character):04x}" for character in "<>&\u2028\u2029"}
# The part of a page's data that later runs read.
_REPORT = {
    "run": {"id": TEXT, "plan_id?": optional(TEXT)},
    "sample": [{"ref_id": TEXT, "thumbnail": optional(TEXT)}],
    # Pages of older versions have examples without thumbnails.
    "failures": [{"examples": [{"ref_id": TEXT, "thumbnail?": optional(TEXT)}]}],
}
# Failures of these reasons have no file to open.
_WITHOUT_FILE = frozenset(
    {
        Reason.NULL_URI,
        Reason.INVALID_ROW,
        Reason.INVALID_URI,
        Reason.NOT_FOUND,
        Reason.NOT_A_FILE,
        Reason.UNSUPPORTED_SCHEME,
    }
)
_MAX_BINS = 60
_MIN_BIN_SECONDS = 0.5
# A worker's clock may be slow by so many seconds. Units that ended earlier belong to an earlier attempt at the run.
_CLOCK_SECONDS = 60.0


def report_data(manifest: Mapping[str, Any], summaries: Iterable[UnitSummary]) -> dict[str, Any]:
    """Merges the summaries; holds one of them at a time, and a bounded number of rows.

    Args:
      manifest: ``_MANIFEST.json``.
      summaries: one per unit, in the order of the units; equal summaries give equal reports.
    """
    labels: Counter[str] = Counter()
    scores: Counter[float] = Counter()
    examples: dict[str, list[dict[str, str | None]]] = {}
    links = Links(manifest)
    sample = RunSample(manifest["metadata"], links)
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
    function = manifest["metadata"].get(metadata_keys.SCORES)
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
        # The next night's report compares with these.
        "distribution": _if_small(dict(ordered)),
        "mean_embedding": _if_small(_mean(embeddings, manifest)),
        "scores": score_bins(scores, probabilities=probabilities),
        "failures": [
            {"reason": reason, "count": count, "examples": _linked(reason, examples.get(reason, []), links)}
            for reason, count in sorted(
                manifest["failed_by_reason"].items(), key=lambda item: (-item[1], item[0])
            )
        ],
    }
    rows, compared = sample.rows(labels)
    has_names = metadata_keys.LABELS_SHA256 in manifest["metadata"]
    data |= {"compared": compared, "has_names": has_names, "several": function == "sigmoid"}
    pictures = len(with_file(data["failures"])) * _THUMBNAIL_BYTES
    room = _PAGE_BYTES - _FRAME_BYTES - pictures - len(embedded_json(data).encode())
    return {**data, "sample": _fitting(rows, room)}


def _linked(
    reason: str, examples: Iterable[Mapping[str, str | None]], links: Links
) -> list[dict[str, str | None]]:
    """Examples of failures with their links, and with room for a thumbnail."""
    linked = []
    for example in examples:
        uri = example["uri"]
        is_whole = uri is not None and len(uri) < MAX_TEXT
        link = links.of(uri) if is_whole and reason not in _WITHOUT_FILE else None
        linked.append({**example, "link": link, "thumbnail": None})
    return linked


def _if_small(value: dict[str, Any] | None) -> dict[str, Any] | None:
    return value if len(embedded_json(value).encode()) <= _COMPARED_BYTES else None


def _mean(total: list[int] | None, manifest: Mapping[str, Any]) -> dict[str, Any] | None:
    """The mean embedding, and its space: only embeddings of one space are comparable."""
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
        "module": manifest["metadata"].get(metadata_keys.MODULE_HANDLE, ""),
        "version": manifest["metadata"].get(metadata_keys.VERSION, ""),
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
    """As many rows as fit into the page: all of them, unless somebody made them large on purpose.

    Each row counts with the largest thumbnail, so that the same rows fit with and without thumbnails.
    """
    texts = (len(embedded_json({**row, "thumbnail": None}).encode()) for row in rows)
    sizes = itertools.accumulate(text + _THUMBNAIL_BYTES for text in texts)
    return [row for row, size in zip(rows, sizes, strict=True) if size <= room]


def embedded_json(value: object) -> str:
    """JSON for a script element: ``<``, ``>``, ``&``, Unicode line ends and lone surrogates are escaped."""
    text = json.dumps(public_values(value), ensure_ascii=False, separators=(",", ":"))
    return encodable(text.translate(_ESCAPES))


def data_of_page(text: str) -> dict[str, Any] | None:
    """The data of a page of any kind; None if they are missing or damaged."""
    found = _DATA.search(text)
    try:
        data: dict[str, Any] | None = parse(found[1]) if found else None
    except ShapeError:
        return None
    return data


def kept_thumbnails(path: str, *, run_id: str | None = None, plan_id: str | None = None) -> dict[str, str]:
    """Maps each ``ref_id`` to its JPEG in base64, from the existing page of this run or of another run of this plan."""
    if not storage.exists(path):
        return {}
    data = data_of_page(storage.read_bytes(path).decode(errors="replace"))
    try:
        check(data, _REPORT)
    except ShapeError:  # no data, or not those of a report
        return {}
    assert data is not None
    run = data["run"]
    is_same = run["id"] == run_id or (plan_id is not None and run.get("plan_id") == plan_id)
    if not is_same:
        return {}
    examples = itertools.chain.from_iterable(failure["examples"] for failure in data["failures"])
    shown = itertools.chain(data["sample"], examples)
    return {row["ref_id"]: row["thumbnail"] for row in shown if row.get("thumbnail")}


def timeline(manifest: Mapping[str, Any]) -> dict[str, Any] | None:
    """Images done in equal spans of the run: ``bin_seconds``, ``counts``, and the images done ``before`` the run.

    The images of a unit are spread evenly from the time its sink saw the first to the time it saw the last. None
    if the manifest's files have no times.
    """
    start = _seconds(manifest["started_at"])
    end = max(_seconds(manifest["committed_at"]), start)  # a clock may be set back
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
    """Adds ``rows`` to the bins from ``low`` to ``high``, both in units of bins."""
    last = len(counts) - 1
    if high - low < 1e-9:
        counts[min(int(low), last)] += rows
        return
    for place in range(int(low), min(int(high), last) + 1):
        counts[place] += rows * max(min(high, place + 1) - max(low, place), 0) / (high - low)


def _seconds(iso: str) -> float:
    return datetime.fromisoformat(iso).timestamp()
