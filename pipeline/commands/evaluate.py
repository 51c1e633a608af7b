"""``beamlabel evaluate OUTPUT --truth TRUTH``: measures how often the labels are right."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from beamlabel.pipeline.errors import UsageError
from beamlabel.pipeline.options.declare import flag, option, positional
from beamlabel.pipeline.options.parser import parse_command
from beamlabel.pipeline.options.types import TEXT, whole
from beamlabel.pipeline.process.messages import answer, answer_json, tell
from beamlabel.pipeline.truth.options import TruthOptions

_SHOWN = 5
_DESCRIPTION = """\
Compares a result's classes with the truth: top-1 with its interval at 95 %, top-5, and with --classes the precision,
recall and most common confusion of each class.

A truth is a column that the job kept (--keep_columns); the word parent, if the images are in one directory per class;
or a file:
  Parquet, .csv, .tsv, .jsonl  one column ref_id, image_id, uri, url, path, file or filename, or --truth_key, and one
                               of classes: truth, class_id, class, label, the only other one, or --truth_column
  text                         one line per image: URI, tab, class; without a tab, the last space separates them
The corrections.csv of a report is such a file. Images are matched by ref_id, image_id or URI, else by their file
names, which have to be unique. If there are several truths, later ones win.

If all classes are whole numbers, they are class ids, which index the logits including a background class; otherwise
they are names, as in the result's labels. An empty class means no truth. If an image has several classes (lists, or
--multi_label), its best class is right if it is one of them, and the image counts for each of its classes."""
_EPILOG = """\
Accuracies are over the images that have a row and a truth. Images that failed have no row: coverage shows their share,
and a separate line counts them as wrong. Exit codes: 0 done, 1 no image has both a row and a truth, 2 wrong usage or no
such result, 3 failed."""


@dataclass(frozen=True, kw_only=True)
class EvaluateOptions(TruthOptions):
    """The result and its truth."""

    output: str = positional(metavar="OUTPUT", help="a run's --output")
    classes: bool = flag(help="show a table of all classes")
    worst: int = option(
        whole(1),
        default=0,
        metavar="N",
        help="show the N classes with the lowest recall, each with the classes that it is most often taken for",
    )
    errors: str | None = option(
        TEXT,
        metavar="FILE",
        help="write all wrong images with truth, prediction and score, highest score first: .csv, .parquet or .jsonl; "
        "an existing FILE is refused",
    )
    json: bool = flag(help="print JSON instead of text")


def main(argv: list[str]) -> int:
    """Runs the command; returns its exit code.

    Raises:
      UsageError: a wrong argument, or a result or a truth that cannot be read.
    """
    options = parse_command(
        EvaluateOptions, argv, command="evaluate", description=_DESCRIPTION, epilog=_EPILOG
    )

    from beamlabel.pipeline.evaluate.evaluate import evaluate
    from beamlabel.pipeline.places.outputs import check_file

    if options.errors is not None:
        check_file("--errors", options.errors)
    try:
        found = evaluate(
            options.output,
            options.truth,
            options.truth_column,
            key=options.truth_key,
            separator=options.multi_label,
            errors=options.errors,
        ).to_json(options.worst)
    except ImportError as error:  # a library that TFRecords need
        raise UsageError(str(error)) from error
    if options.json:
        answer_json(found)
    else:
        answer("\n".join(_blocks(found, options)))
    if not found["evaluated"]:
        tell("no image has both a row and a truth", "beamlabel evaluate")
        return 1
    return 0


def _blocks(found: dict[str, Any], options: EvaluateOptions) -> Iterator[str]:
    yield _summary(found)
    if options.worst:
        yield _worst(found["worst"])
    if options.classes:
        yield _table(found["classes"])


def _summary(found: dict[str, Any]) -> str:
    top = found["top_k"]
    lines = [
        ("top-1", found["top_1"], f"of {found['evaluated']} images{_interval(found)}"),
        (f"top-{top['k']}", top["accuracy"], ""),
        ("coverage", found["coverage"], _failed(found)),
    ]
    if found["failed"]:
        lines.append(("top-1", found["top_1_failures_wrong"], "counting failed images as wrong"))
    text = "".join(f"{name:<9} {_number(value)}  {note}".rstrip() + "\n" for name, value, note in lines)
    if (trained := found["trained_module"]) is not None:
        text += (
            f"{trained} was trained by beamlabel train, so its accuracy on images that it was trained on is too high; "
            "its report has the accuracy on its test images\n"
        )
    if found["multi_label"]:
        text += f"{found['measure']}\n"
    for key, what in (
        ("rows_without_truth", "rows have no truth"),
        ("failed_without_truth", "images failed and have no truth"),
        ("truths_without_row", "truths match no image of this result"),
    ):
        if found[key]:
            text += f"{found[key]} {what}\n"
    if never := found["truths_in_no_row"]:
        more = f" and {len(never) - _SHOWN} more" if len(never) > _SHOWN else ""
        text += f"classes that no row holds (misspelled?): {', '.join(never[:_SHOWN])}{more}\n"
    for problem in found["problems"]:
        text += f"{problem['count']} {problem['what']}: {', '.join(problem['examples'])}\n"
    if errors := found.get("errors"):
        text += f"{errors['images']} wrong images are in {errors['file']}\n"
    return text


def _interval(found: dict[str, Any]) -> str:
    interval = found["top_1_interval"]
    return f"; at 95 % {interval['low']:.4f} to {interval['high']:.4f}" if interval else ""


def _failed(found: dict[str, Any]) -> str:
    if not found["failed"]:
        return "no image failed"
    unknown = ", with or without a truth" if found["truth_by"] == "column" else ""
    return f"{found['failed']} image{'' if found['failed'] == 1 else 's'} failed{unknown}"


def _worst(classes: Sequence[dict[str, Any]]) -> str:
    rows = [("lowest recall", "images", "recall", "taken for")]
    for one in classes:
        taken = ", ".join(f"{_name(other)} ({other['count']})" for other in one["confusions"])
        rows.append((_name(one), str(one["support"]), _number(one["recall"]), taken))
    width = max(len(row[0]) for row in rows)
    return "".join(
        f"{name:<{width}}  {images:>7}  {recall:>6}  {taken}".rstrip() + "\n"
        for name, images, recall, taken in rows
    )


def _name(one: dict[str, Any]) -> str:
    return f"{one['class']} {one['name']}" if one["name"] else str(one["class"])


def _table(classes: Sequence[dict[str, Any]]) -> str:
    names = {one["class"]: _name(one) for one in classes}
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
