"""Compares two sides, bucket by bucket in bounded memory; the result consists of plain JSON values."""

from __future__ import annotations

import csv
import heapq
import io
import itertools
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from beamlabel.pipeline.diff.sides import BUCKETS, Side, read_side
from beamlabel.pipeline.report.drift import embedding_drift, label_drift
from beamlabel.transforms.rows import metadata_keys

_TRANSITIONS = 50
_BATCH_ROWS = 4096

KINDS = ("relabeled", "added", "removed", "failed", "recovered", "other_reason", "replaced")
"""Kinds of changes of an image. ``failed``: labeled before and failed now; ``recovered``: the reverse; ``replaced``:
other content with the same label."""

LISTED = ("change", "image_id", "uri", "a_label", "b_label", "a_score", "b_score", "a_reason", "b_reason")
"""The columns of a list of changed images."""


@dataclass
class Counts:
    """Sums over the buckets."""

    of: Counter[str] = field(default_factory=Counter)
    transitions: Counter[tuple[str, str]] = field(default_factory=Counter)
    a_reasons: Counter[str] = field(default_factory=Counter)
    b_reasons: Counter[str] = field(default_factory=Counter)
    change: float = 0.0
    absolute_change: float = 0.0
    largest_change: float = 0.0
    compared_scores: int = 0


class Examples:
    """The few changed images of each kind to show.

    These are the relabeled ones with the highest scores on both sides, and of other kinds those with the smallest
    image_ids, which are hashes.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._heaps: dict[str, list[tuple[float, _Reversed, int, dict[str, Any]]]] = {
            kind: [] for kind in KINDS
        }
        self._offered = itertools.count()

    def offer(self, row: dict[str, Any]) -> None:
        """Adds a changed image in the form of ``_changed``."""
        kind = row["change"]
        rank = min(row["a_score"] or 0.0, row["b_score"] or 0.0) if kind == "relabeled" else 0.0
        entry = (rank, _Reversed(row["image_id"]), next(self._offered), row)
        heap = self._heaps[kind]
        if len(heap) < self._limit:
            heapq.heappush(heap, entry)
        elif heap:
            heapq.heappushpop(heap, entry)

    def chosen(self) -> dict[str, list[dict[str, Any]]]:
        """The images of each kind, the best first."""
        return {kind: [row for *_, row in sorted(heap, reverse=True)] for kind, heap in self._heaps.items()}


class _Reversed(str):
    """Text that sorts in reverse order."""

    __slots__ = ()

    def __lt__(self, other: str) -> bool:
        return str.__gt__(self, other)


def compare(a: str, b: str, *, examples: int, listed: Path | None = None) -> dict[str, Any]:
    """Compares the current outcomes of two outputs, or of two sets of them.

    Args:
      a, b: an output, a directory of outputs, or a glob of either.
      examples: number of images of each kind of change to return.
      listed: file for a CSV of all changed images, with the columns ``LISTED``.

    Returns:
      See docs/commands.md for the keys.

    Raises:
      UsageError: there is no such output.
      OSError, ValueError, ImportError: a file cannot be read.
    """
    with tempfile.TemporaryDirectory(prefix="diff-") as directory:
        sides = []
        for name, pattern in (("A", a), ("B", b)):
            place = Path(directory) / name
            place.mkdir()
            sides.append(read_side(pattern, name, place))
        counts, chosen = Counts(), Examples(examples)
        with _list(listed) as write:
            for number in range(BUCKETS):
                for rows in _changed(_joined(sides[0].bucket(number), sides[1].bucket(number)), counts):
                    write(rows)
                    for row in rows:
                        chosen.offer(row)
        return _result(sides[0], sides[1], counts, chosen.chosen())


def _joined(a: pa.Table, b: pa.Table) -> pa.Table:
    """All images of two buckets, by image_id, with the columns of both sides prefixed by ``a_`` and ``b_``."""
    named = [
        side.rename_columns(
            [c if c == "image_id" else f"{prefix}_{c}" for c in side.column_names]
        ).combine_chunks()
        for side, prefix in ((a, "a"), (b, "b"))
    ]
    there = [
        side.append_column(f"{prefix}_there", pa.array(np.ones(side.num_rows, bool)))
        for side, prefix in zip(named, "ab", strict=True)
    ]
    joined = there[0].join(there[1], keys="image_id", join_type="full outer", coalesce_keys=True)
    return joined.sort_by("image_id")


def _changed(joined: pa.Table, counts: Counts) -> Iterator[list[dict[str, Any]]]:
    """Counts a bucket's images; yields the changed ones, some thousands at a time."""

    def column(name: str) -> Any:
        return joined.column(name)

    def numpy(values: Any) -> np.ndarray:
        return np.asarray(values.to_numpy())

    in_a, in_b = (numpy(column(f"{side}_there").is_valid()) for side in "ab")
    failed_a, failed_b = (numpy(column(f"{side}_reason").is_valid()) for side in "ab")
    labeled_a, labeled_b = in_a & ~failed_a, in_b & ~failed_b
    differs = numpy(pc.fill_null(pc.not_equal(column("a_label"), column("b_label")), False))
    other_reason = numpy(pc.fill_null(pc.not_equal(column("a_reason"), column("b_reason")), False))
    both = labeled_a & labeled_b
    other_content = _other_content(joined)
    masks = {
        "relabeled": both & differs,
        "added": in_b & ~in_a,
        "removed": in_a & ~in_b,
        "failed": labeled_a & failed_b,
        "recovered": failed_a & labeled_b,
        "other_reason": failed_a & failed_b & other_reason,
        "replaced": both & ~differs & other_content,
    }
    counts.of.update({kind: int(mask.sum()) for kind, mask in masks.items()})
    counts.of.update(
        {
            "in_both": int((in_a & in_b).sum()),
            "same_label": int((both & ~differs).sum()),
            "added_failed": int((masks["added"] & failed_b).sum()),
            "removed_failed": int((masks["removed"] & failed_a).sum()),
            "same_reason": int((failed_a & failed_b & ~other_reason).sum()),
            "other_content": int((both & other_content).sum()),
        }
    )
    for name, reasons in (("a_reason", counts.a_reasons), ("b_reason", counts.b_reasons)):
        reasons.update(
            {v["values"]: v["counts"] for v in column(name).value_counts().to_pylist() if v["values"]}
        )
    _add_scores(joined, both & ~differs, counts)
    changed = np.select(list(masks.values()), range(1, len(masks) + 1), 0)
    table = joined.append_column("kind", pa.array(changed)).filter(pa.array(changed > 0))
    for batch in table.to_batches(_BATCH_ROWS):
        rows = [_change(row) for row in batch.to_pylist()]
        counts.transitions.update(
            (row["a_label"], row["b_label"]) for row in rows if row["change"] == "relabeled"
        )
        yield rows


def _other_content(joined: pa.Table) -> np.ndarray:
    a, b = (pc.if_else(pc.equal(joined.column(f"{side}_content_hash"), ""), None, joined.column(f"{side}_content_hash"))
            for side in "ab")  # fmt: skip
    return np.asarray(pc.fill_null(pc.not_equal(a, b), False).to_numpy())


def _add_scores(joined: pa.Table, same: np.ndarray, counts: Counts) -> None:
    a, b = (joined.column(f"{side}_score").to_numpy()[same].astype(np.float64) for side in "ab")
    change = (b - a)[~np.isnan(a) & ~np.isnan(b)]
    if len(change):
        counts.compared_scores += len(change)
        counts.change += float(change.sum())
        counts.absolute_change += float(np.abs(change).sum())
        counts.largest_change = max(counts.largest_change, float(np.abs(change).max()))


def _change(row: dict[str, Any]) -> dict[str, Any]:
    """A changed image in the form of the result."""
    side = "b" if row["b_there"] else "a"
    hashes = row["a_content_hash"], row["b_content_hash"]
    scores = [None if row[name] is None else float(f"{row[name]:.6g}") for name in ("a_score", "b_score")]
    return {
        "change": KINDS[row["kind"] - 1],
        "image_id": row["image_id"],
        "uri": row[f"{side}_uri"],
        "ref_id": row[f"{side}_ref_id"],
        "a_label": row["a_label"], "b_label": row["b_label"],
        "a_score": scores[0], "b_score": scores[1],
        "a_reason": row["a_reason"], "b_reason": row["b_reason"],
        "detail": row["b_detail"] if row["b_there"] else row["a_detail"],
        "replaced": hashes[0] != hashes[1] if all(hashes) else None,
        "outputs": [row["a_output"], row["b_output"]],
    }  # fmt: skip


class _list:  # noqa: N801 (used as a function)
    """Writes changed images to a CSV if there is a path; a context manager."""

    def __init__(self, path: Path | None) -> None:
        self._file: io.TextIOBase | None = (
            None if path is None else path.open("w", newline="", encoding="utf-8")
        )  # type: ignore[assignment]

    def __enter__(self) -> Callable[[Sequence[dict[str, Any]]], None]:
        if self._file is None:
            return lambda rows: None
        writer = csv.DictWriter(self._file, LISTED, extrasaction="ignore", lineterminator="\n")
        writer.writeheader()
        return writer.writerows

    def __exit__(self, *_: object) -> None:
        if self._file is not None:
            self._file.close()


def _result(a: Side, b: Side, counts: Counts, examples: dict[str, list[dict[str, Any]]]) -> dict[str, Any]:
    of, compared = counts.of, counts.of["same_label"] + counts.of["relabeled"]
    reasons = sorted(counts.a_reasons.keys() | counts.b_reasons.keys())
    for row in itertools.chain.from_iterable(examples.values()):
        places = row.pop("outputs")
        row["outputs"] = [
            None if place is None else side.outputs[place].directory
            for place, side in zip(places, (a, b), strict=True)
        ]
    return {
        "a": _side(a),
        "b": _side(b),
        "images": {
            "in_both": of["in_both"],
            "added": of["added"],
            "removed": of["removed"],
            "replaced": of["other_content"],
            "replaced_same_label": of["replaced"],
        },
        "labels": {
            "compared": compared,
            "same": of["same_label"],
            "relabeled": of["relabeled"],
            "transitions": [
                {"from": old, "to": new, "images": images}
                for (old, new), images in sorted(
                    counts.transitions.items(), key=lambda item: (-item[1], item[0])
                )
            ][:_TRANSITIONS],
        },
        "scores": None
        if not counts.compared_scores
        else {
            "compared": counts.compared_scores,
            "mean_change": float(f"{counts.change / counts.compared_scores:.6g}"),
            "mean_absolute_change": float(f"{counts.absolute_change / counts.compared_scores:.6g}"),
            "largest_absolute_change": float(f"{counts.largest_change:.6g}"),
        },
        "failures": {
            "came": of["failed"] + of["added_failed"],
            "came_of_known_images": of["failed"],
            "went": of["recovered"] + of["removed_failed"],
            "went_and_labeled": of["recovered"],
            "same_reason": of["same_reason"],
            "other_reason": of["other_reason"],
            "by_reason": [
                {"reason": reason, "a": counts.a_reasons[reason], "b": counts.b_reasons[reason]}
                for reason in reasons
            ],
        },
        "label_drift": label_drift(a.labels, b.labels),
        "embedding_drift": _embeddings(a, b),
        "examples": examples,
    }


def _side(side: Side) -> dict[str, Any]:
    modules = {
        (
            output.manifest["metadata"].get(metadata_keys.MODULE_HANDLE, ""),
            output.manifest["metadata"].get(metadata_keys.MODULE_FINGERPRINT, ""),
        )
        for output in side.outputs
    }
    return {
        "outputs": [output.directory for output in side.outputs],
        "runs": [output.manifest["run_id"] for output in side.outputs],
        "modules": [
            {"handle": handle, "fingerprint": fingerprint} for handle, fingerprint in sorted(modules)
        ],
        "labeled": side.labeled,
        "failed": side.failed,
        "unidentified": side.unidentified,
    }


def _embeddings(a: Side, b: Side) -> dict[str, Any]:
    spaces = a.spaces | b.spaces
    if not a.spaces or not b.spaces:
        return {"comparable": False, "why_not": "one side has no embeddings"}
    if len(spaces) > 1:
        return {
            "comparable": False,
            "why_not": "module, preprocessing or normalization differs",
        }
    assert a.embedding_sum is not None and b.embedding_sum is not None
    drift = embedding_drift(a.embedding_sum / a.labeled, b.embedding_sum / b.labeled)
    return {"comparable": True, "why_not": None, **drift}
