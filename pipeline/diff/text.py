"""Formats a comparison as text of 80 columns."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

_WIDTH = 80
_SHOWN = 10


def as_text(found: Mapping[str, Any]) -> str:
    """Formats the result of ``compare`` for the terminal."""
    return "".join(f"{line}\n" for line in _lines(found))


def _lines(found: Mapping[str, Any]) -> Iterator[str]:
    yield from _sides(found)
    labels, failures = found["labels"], found["failures"]
    yield ""
    yield from _table(_counts(found))
    if found["scores"]:
        scores = found["scores"]
        yield ""
        yield f"Same label: {scores['compared']:,} images, mean score change {scores['mean_change']:+.4f},"
        mean, largest = scores["mean_absolute_change"], scores["largest_absolute_change"]
        yield f"mean absolute change {mean:.4f}, largest {largest:.4f}"
    if labels["transitions"]:
        yield from _titled(
            "Relabeled", [(f"{t['from']} → {t['to']}", t["images"], "") for t in labels["transitions"]]
        )
    if examples := found["examples"]["relabeled"][:_SHOWN]:
        yield ""
        yield "Relabeled images with the highest scores on both sides"
        for row in examples:
            yield f"  {_end(row['uri'], _WIDTH - 2)}"
            yield f"    {_end(_change(row), _WIDTH - 4)}"
    if failures["by_reason"]:
        yield from _titled(
            "Failures by reason in A and B",
            [(r["reason"], r["a"], f"{r['b']:,}") for r in failures["by_reason"]],
        )
    yield from _drift(found)


def _counts(found: Mapping[str, Any]) -> list[tuple[str, int, str]]:
    images, labels, failures = found["images"], found["labels"], found["failures"]
    return [
        (
            "images in both",
            images["in_both"],
            f"{images['replaced']:,} labeled in both have other content",
        ),
        ("added", images["added"], ""),
        ("removed", images["removed"], ""),
        (
            "relabeled",
            labels["relabeled"],
            f"{_percent(labels['relabeled'], labels['compared'])} of those labeled in both",
        ),
        (
            "new failures",
            failures["came"],
            f"{failures['came_of_known_images']:,} of images labeled before",
        ),
        (
            "failures gone",
            failures["went"],
            f"{failures['went_and_labeled']:,} of images labeled now",
        ),
        ("other reason", failures["other_reason"], ""),
    ]


def _sides(found: Mapping[str, Any]) -> Iterator[str]:
    for name in ("a", "b"):
        side = found[name]
        count = len(side["outputs"])
        what = side["outputs"][0] if count == 1 else f"{count} outputs, the last one {side['outputs'][-1]}"
        yield f"{name.upper()}  {_end(what, _WIDTH - 3)}"
        yield f"   {side['labeled']:,} labeled, {side['failed']:,} failed"
        if side["unidentified"]:
            yield f"   {side['unidentified']:,} rows do not identify their image and are not compared"
    if found["a"]["modules"] != found["b"]["modules"]:
        yield "   the modules differ"


def _change(row: Mapping[str, Any]) -> str:
    a, b = (f"{row[f'{side}_label']} {row[f'{side}_score'] or 0:.2f}" for side in "ab")
    change = (row["b_score"] or 0) - (row["a_score"] or 0)
    return f"{a} → {b} ({change:+.2f}{', the image has changed' if row['replaced'] else ''})"


def _drift(found: Mapping[str, Any]) -> Iterator[str]:
    yield ""
    labels, embeddings = found["label_drift"], found["embedding_drift"]
    if labels is None:
        yield "Labels: one side has none"
    else:
        yield (
            f"Labels: total variation {labels['total_variation']:.4f}, "
            f"Jensen-Shannon {labels['jensen_shannon']:.4f} bits"
        )
        for one in labels["labels"][:_SHOWN]:
            numbers = f"{one['a']:>9,} {one['b']:>9,} {100 * one['change']:>+8.2f} points"
            yield f"  {_end(one['label'], 40):<40} {numbers}"
    if not embeddings["comparable"]:
        yield f"Mean embedding not compared: {embeddings['why_not']}"
        return
    cosine = embeddings["cosine_distance"]
    yield (
        f"Mean embedding: cosine distance {'-' if cosine is None else f'{cosine:.3g}'}, L2 "
        f"{embeddings['l2_distance']:.3g} (lengths: A {embeddings['length_a']:.3g}, B {embeddings['length_b']:.3g})"
    )


def _titled(title: str, rows: Sequence[tuple[str, int, str]]) -> Iterator[str]:
    yield ""
    yield title
    yield from ("  " + line for line in _table([(_end(name, 54), *rest) for name, *rest in rows[:_SHOWN]]))
    if len(rows) > _SHOWN:
        yield f"  and {len(rows) - _SHOWN} more"


def _table(rows: Sequence[tuple[Any, ...]]) -> Iterator[str]:
    width = max(len(row[0]) for row in rows)
    for name, number, note in rows:
        yield f"{name:<{width}}  {number:>10,}  {note}".rstrip()


def _percent(part: int, whole: int) -> str:
    return f"{100 * part / whole:.2f} %" if whole else "none"


def _end(text: str, width: int) -> str:
    """At most ``width`` characters from the end, which tells more than the start of a URI."""
    return text if len(text) <= width else "…" + text[-(width - 1) :]
