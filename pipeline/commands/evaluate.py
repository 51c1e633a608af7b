"""``beamlabel evaluate OUTPUT --truth COLUMN|FILE``: how often the labels are right."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from beamlabel.pipeline.options.declare import flag, option, positional, required
from beamlabel.pipeline.options.parser import parse_command
from beamlabel.pipeline.options.types import TEXT

_SHOWN = 5
_DESCRIPTION = """\
Compares a result's classes with the truth: top-1, top-5, and precision, recall and the commonest confusion of
each class.

The truth is a column that the job kept (--keep_columns), or a file:
  Parquet, .csv, .tsv  one column ref_id, uri, url or path, which is matched with the result's ref_id or uri, and
                       one of classes: truth, class_id, class, label, the only other one, or --truth_column
  text                 a line an image: its URI, a tab, its class; without a tab, the last space divides them
Classes that are all whole numbers are class ids, which index the logits, a background class included; others are
names, as in the result's labels. An empty class is none."""
_EPILOG = """\
Accuracies are over the images that have a row and a truth. Images that failed have no row: coverage says how many
that is, and a line of its own counts them as wrong. Exit codes: 0 done, 1 no image has both a row and a truth,
2 wrong usage or no such result, 3 it broke."""


@dataclass(frozen=True, kw_only=True)
class EvaluateOptions:
    """The result, and the truth that it is compared with."""

    output: str = positional(metavar="OUTPUT", help="a run's --output, of Parquet")
    truth: str = required(metavar="COLUMN|FILE", help="see above; ./NAME is always a file")
    truth_column: str | None = option(TEXT, metavar="NAME", help="column of FILE that holds the classes")
    json: bool = flag(help="JSON for machines, not text")


def main(argv: list[str]) -> int:
    """Runs the command; returns its exit code.

    Raises:
      UsageError: a wrong argument, or a result or a truth that cannot be read.
    """
    options = parse_command(
        EvaluateOptions, argv, command="evaluate", description=_DESCRIPTION, epilog=_EPILOG
    )

    from beamlabel.pipeline.evaluate.evaluate import evaluate

    found = evaluate(options.output, options.truth, options.truth_column).to_json()
    sys.stdout.write(json.dumps(found, indent=1, ensure_ascii=False) + "\n" if options.json else _text(found))
    if not found["evaluated"]:
        sys.stderr.write("beamlabel evaluate: no image has both a row and a truth\n")
        return 1
    return 0


def _text(found: dict[str, Any]) -> str:
    top = found["top_k"]
    lines = [
        ("top-1", found["top_1"], f"of {found['evaluated']} images"),
        (f"top-{top['k']}", top["accuracy"], ""),
        ("coverage", found["coverage"], _failed(found)),
        ("top-1", found["top_1_failures_wrong"], "with those that failed as wrong"),
    ]
    text = "".join(f"{name:<9} {_number(value)}  {note}".rstrip() + "\n" for name, value, note in lines)
    for key, what in (
        ("rows_without_truth", "rows have no truth"),
        ("failed_without_truth", "images failed and have no truth"),
        ("truths_without_row", "truths are of no image here"),
    ):
        if found[key]:
            text += f"{found[key]} {what}\n"
    if never := found["truths_in_no_row"]:
        more = f" and {len(never) - _SHOWN} more" if len(never) > _SHOWN else ""
        text += f"classes that no row holds, misspelt perhaps: {', '.join(never[:_SHOWN])}{more}\n"
    return text + "\n" + _table(found["classes"])


def _failed(found: dict[str, Any]) -> str:
    if not found["failed"]:
        return "no image failed"
    unknown = ", truth or not" if found["truth_by"] == "column" else ""
    return f"{found['failed']} images failed{unknown}"


def _table(classes: Sequence[dict[str, Any]]) -> str:
    names = {
        one["class"]: f"{one['class']} {one['name']}" if one["name"] else one["class"] for one in classes
    }
    rows = [("class", "images", "precision", "recall", "most confused with")]
    for one in classes:
        other = one["most_confused_with"]
        confused = "" if other is None else f"{names[other]} ({one['confused']})"
        rows.append(
            (
                names[one["class"]],
                str(one["support"]),
                _number(one["precision"]),
                _number(one["recall"]),
                confused,
            )
        )
    width = max(len(row[0]) for row in rows)
    return "".join(
        f"{name:<{width}}  {images:>7}  {precision:>9}  {recall:>6}  {confused}".rstrip() + "\n"
        for name, images, precision, recall, confused in rows
    )


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"
