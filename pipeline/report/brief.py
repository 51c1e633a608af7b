"""The labels and failures of a written report for the log, so that the end of a run does not read its rows again."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from beamlabel.pipeline import layout
from beamlabel.pipeline.report.data import data_of_page
from beamlabel.transforms import storage
from beamlabel.transforms.shapes import ANYTHING, TEXT, ShapeError, check, optional

_BRIEF = {
    "run": {"id": TEXT},
    "labels": {"shown": [ANYTHING]},
    "failures": [
        {"reason": TEXT, "examples": [{"uri": optional(TEXT), "ref_id": TEXT, "detail": optional(TEXT)}]}
    ],
}


@dataclass(frozen=True)
class Brief:
    """A part of a report.

    Attributes:
      labels: the most frequent best labels with their numbers of rows, most frequent first, of all predicted rows.
      failures: examples of failures, each with ``uri``, ``ref_id``, ``reason`` and ``detail``.
    """

    labels: list[tuple[str, int]]
    failures: list[dict[str, str | None]]


def brief(manifest: Mapping[str, Any]) -> Brief | None:
    """Reads the page of a published run; None if it is missing, damaged, or that of another run.

    Raises:
      OSError: the page cannot be read.
    """
    path = storage.join(manifest["output"], layout.REPORT)
    try:
        data = data_of_page(storage.read_bytes(path).decode(errors="replace"))
        check(data, _BRIEF)
    except (FileNotFoundError, ShapeError):
        return None
    assert data is not None
    if data["run"]["id"] != manifest["run_id"]:
        return None
    failures = [
        {**example, "reason": failure["reason"]}
        for failure in data["failures"]
        for example in failure["examples"]
    ]
    return Brief([(str(label), int(count)) for label, count in data["labels"]["shown"]], failures)
