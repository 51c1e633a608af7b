"""Checks that a run over faulty references left exactly one correct row for each, and nothing else."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from beamlabel.pipeline import layout
from beamlabel.pipeline.output import staging
from beamlabel.pipeline.output.verify import verify
from support.faulty_references import Reference

# Columns for the location and the labeling time of an image; they do not depend on its content.
_OF_THE_PLACE = ("uri", "ref_id", "image_id", "source_version", "labeled_at")
# The maximum number of problems that are shown.
_MOST_SHOWN = 5


@dataclass
class Outcome:
    """The outcome of a run's references.

    Attributes:
      images: The number of references in the list.
      predicted, failed, skipped: The counts in the manifest.
      lost: References without a row, beyond those that the manifest counts as skipped.
      doubled: Rows beyond the first of a reference.
      wrong_reasons: Failures of good images or with another reason than the fault's, and rows of faulty images.
      wrong_rows: Rows that differ in any bit from their photographs' rows in a run without faults.
      problems: A line for each problem, limited per kind.
    """

    images: int = 0
    predicted: int = 0
    failed: int = 0
    skipped: int = 0
    lost: int = 0
    doubled: int = 0
    wrong_reasons: int = 0
    wrong_rows: int = 0
    problems: list[str] = field(default_factory=list)

    def add(self, other: Outcome) -> None:
        """Adds the counts of another run."""
        for name, value in vars(other).items():
            setattr(self, name, getattr(self, name) + value)


class Truth:
    """The rows of all photographs in a run without faults.

    Args:
      output: The run's output; its references are the photographs in order.
      photos: The number of photographs.
    """

    def __init__(self, output: Path, photos: int) -> None:
        table, failures = read_rows(output)
        if failures or table.num_rows != photos:
            raise ValueError(f"{photos} photographs, but {table.num_rows} rows and the failures {failures}")
        table = table.take(pa.array(np.argsort(_numbers(table["ref_id"].to_pylist()))))
        self._columns = _bits(table)

    def wrong_rows(self, table: pa.Table, photos: np.ndarray) -> np.ndarray:
        """The rows that differ in any bit of a column that depends on the image's content.

        Args:
          table: The rows of a run.
          photos: int64[rows], the photograph of each row.
        """
        found = _bits(table)
        if found.keys() != self._columns.keys():
            raise ValueError(f"the columns are {sorted(found)}, not {sorted(self._columns)}")
        wrong = np.zeros(table.num_rows, bool)
        for name, values in found.items():
            differ = values != self._columns[name][photos]
            wrong |= differ.reshape(len(wrong), -1).any(axis=1)
        return wrong


def read_rows(output: Path) -> tuple[pa.Table, list[dict[str, Any]]]:
    """The rows of the data files and of the failure files that the manifest names."""
    manifest = json.loads((output / layout.MANIFEST).read_text())
    names = {
        kind: [one["name"] for one in manifest["files"] if one["kind"] == kind] for kind in layout.DIRECTORIES
    }
    tables = [pq.read_table(output / name) for name in names["data"]]
    lines = [line for name in names["failures"] for line in (output / name).read_text().splitlines()]
    return pa.concat_tables(tables), [json.loads(line) for line in lines]


def check_rows(output: Path, references: Sequence[Reference], truth: Truth) -> Outcome:
    """Checks a published run completely.

    Args:
      output: The output of a list with one reference per line.
      references: The references in the order of the list.
      truth: The truth of the same module.
    """
    table, failures = read_rows(output)
    manifest = json.loads((output / layout.MANIFEST).read_text())
    counts = manifest["rows"]
    outcome = Outcome(len(references), counts["predicted"], counts["failed"], counts["skipped"])
    problems = outcome.problems
    problems += verify(str(output)).problems
    found = Counter(counts) - Counter(input=counts["input"])
    if counts["input"] != len(references) or sum(found.values()) != counts["input"]:
        problems.append(f"{len(references)} references, but the manifest counts {counts}")
    if (table.num_rows, len(failures)) != (counts["predicted"], counts["failed"]):
        problems.append(
            f"{table.num_rows} rows and {len(failures)} failures, but the manifest counts {counts}"
        )
    predicted = _numbers(table["ref_id"].to_pylist())
    failed = _numbers([one["ref_id"] for one in failures])
    times = np.bincount(np.concatenate([predicted, failed]), minlength=len(references))
    outcome.lost = int((times == 0).sum()) - counts["skipped"]
    outcome.doubled = int(np.maximum(times - 1, 0).sum())
    for number in np.flatnonzero(times > 1)[:_MOST_SHOWN]:
        problems.append(f"{times[number]} rows of line {number}")
    if outcome.lost:
        problems.append(f"{outcome.lost} references are lost")
    _check_failures(outcome, references, failures, failed)
    _check_predictions(outcome, references, table, predicted, truth)
    problems += [f"left over: {path}" for path in _left_over(output, complete=manifest["complete"])]
    return outcome


def _check_failures(
    outcome: Outcome,
    references: Sequence[Reference],
    failures: Sequence[Mapping[str, Any]],
    numbers: np.ndarray,
) -> None:
    shown = 0
    for number, failure in zip(numbers.tolist(), failures, strict=True):
        reference = references[number]
        wanted = reference.reason and reference.reason.value
        if failure["reason"] != wanted:
            outcome.wrong_reasons += 1
            shown += 1
            if shown <= _MOST_SHOWN:
                outcome.problems.append(
                    f"{reference.line[:200]!r} ({reference.fault or 'good'}) failed with {failure['reason']} "
                    f"({failure['detail']}), not {wanted}"
                )


def _check_predictions(
    outcome: Outcome, references: Sequence[Reference], table: pa.Table, numbers: np.ndarray, truth: Truth
) -> None:
    of_photos = np.array([references[number].photo is not None for number in numbers.tolist()], bool)
    outcome.wrong_reasons += int((~of_photos).sum())
    for number in numbers[~of_photos][:_MOST_SHOWN]:
        reference = references[number]
        outcome.problems.append(f"{reference.line[:200]!r} ({reference.fault}) has a row")
    table, numbers = table.filter(pa.array(of_photos)), numbers[of_photos]
    wrong = truth.wrong_rows(table, np.array([references[number].photo for number in numbers.tolist()], int))
    lines = [references[number].line.decode() for number in numbers.tolist()]
    wrong |= np.array([uri != line for uri, line in zip(table["uri"].to_pylist(), lines, strict=True)], bool)
    outcome.wrong_rows = int(wrong.sum())
    for number in numbers[wrong][:_MOST_SHOWN]:
        outcome.problems.append(f"{references[number].line[:200]!r} has another row than its photograph")


def _left_over(output: Path, *, complete: bool) -> list[str]:
    """The files in beamlabel's directories in and beside the output, except those that the next run may resume."""
    directories = [Path(directory) for directory in staging.own_directories(str(output))]
    left = {
        path for directory in directories if directory.exists() for path in (directory, *directory.rglob("*"))
    }
    if not complete:
        left -= {output / layout.OWN, output / layout.OWN / layout.UNITS}
    return sorted(map(str, left))


def _numbers(ref_ids: Sequence[str]) -> np.ndarray:
    """int64: The positions in the list."""
    return np.array([int(ref_id.rpartition("#")[2]) for ref_id in ref_ids], np.int64)


def _bits(table: pa.Table) -> dict[str, np.ndarray]:
    """The columns that depend on the image's content as arrays, one row per row, floats as bits."""
    found = {}
    for name in table.column_names:
        if name in _OF_THE_PLACE:
            continue
        column = table[name].combine_chunks()
        values = column
        while pa.types.is_list(values.type) or pa.types.is_fixed_size_list(values.type):
            values = values.flatten()
        if values.null_count:
            raise ValueError(f"{name} has nulls")
        array = values.to_numpy(zero_copy_only=False)
        if array.dtype.kind == "f":
            array = array.view(f"u{array.dtype.itemsize}")
        found[name] = array.reshape(table.num_rows, -1)
    return found
