"""A result against the truth: how often the best class, or one of the best five, is the right one."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from beamlabel.pipeline import layout
from beamlabel.pipeline.errors import UsageError
from beamlabel.pipeline.evaluate.truth import Truth, are_ids, check_class_type, read_truth
from beamlabel.pipeline.output.manifest import absolute_output, require_manifest
from beamlabel.transforms import storage
from beamlabel.transforms.inputs.parquet_source import open_parquet
from beamlabel.transforms.rows import schema
from beamlabel.transforms.rows.schema import own_columns_by_metadata

TOP = 5
_BATCH_ROWS = 8192


@dataclass
class TruthCounts:
    """What was counted so far.

    Attributes:
      rows, evaluated: rows of the result, and those of them with a truth.
      correct, correct_top: of the evaluated, those whose best class is right, and with the right class among
        the best ``TOP``.
      kept: classes in a row, at most.
      failed: images that failed and have a truth; with a column, all that failed, whose truth no row tells.
      failed_without_truth: the other ones that failed.
      pairs: how often a class (first) was taken for a class (second).
      seen: all classes that are among any evaluated row's.
      names: of the classes, where these are numbers and have names.
    """

    rows: int = 0
    evaluated: int = 0
    correct: int = 0
    correct_top: int = 0
    kept: int = 0
    failed: int = 0
    failed_without_truth: int = 0
    pairs: Counter[tuple[str, str]] = field(default_factory=Counter)
    seen: set[str] = field(default_factory=set)
    names: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Evaluation:
    """What was counted, and where the truth came from.

    Attributes:
      by: ``uri``, ``ref_id``, or ``column``.
      unmatched: images with a truth, and neither row nor failure; None with a column.
    """

    counts: TruthCounts
    by: str
    unmatched: int | None

    def to_json(self) -> dict[str, Any]:
        """A plain dict for ``json.dumps``; what has no value, such as the precision of nothing, is None."""
        counts = self.counts
        tried = counts.evaluated + counts.failed
        return {
            "truth_by": self.by,
            "rows": counts.rows,
            "evaluated": counts.evaluated,
            "rows_without_truth": counts.rows - counts.evaluated,
            "failed": counts.failed,
            "failed_without_truth": counts.failed_without_truth,
            "truths_without_row": self.unmatched,
            "coverage": _ratio(counts.evaluated, tried),
            "top_1": _ratio(counts.correct, counts.evaluated),
            "top_k": {"k": min(TOP, counts.kept), "accuracy": _ratio(counts.correct_top, counts.evaluated)},
            "top_1_failures_wrong": _ratio(counts.correct, tried),
            "truths_in_no_row": sorted({truth for truth, _ in counts.pairs} - counts.seen),
            "classes": list(_classes(counts)),
        }


@dataclass(frozen=True)
class _Result:
    """What the manifest says of a result of Parquet with classes."""

    output: str
    shards: tuple[str, ...]
    failures: tuple[str, ...]
    failed: int
    has_names: bool
    own_columns: frozenset[str]

    @contextmanager
    def readable(self, name: str) -> Iterator[str]:
        """The path of a file of the result; what goes wrong with it is told by its name."""
        try:
            yield storage.join(self.output, *name.split("/"))
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise UsageError(
                f"OUTPUT {self.output!r}: {name} cannot be read: {error}; see beamlabel verify"
            ) from error

    def schema(self) -> pa.Schema:
        with self.readable(self.shards[0]) as path, open_parquet(path) as file:
            return file.schema_arrow

    def batches(self, columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
        for name in self.shards:
            with self.readable(name) as path, open_parquet(path) as file:
                yield from file.iter_batches(_BATCH_ROWS, columns=columns)


def evaluate(output: str, truth: str, column: str | None = None) -> Evaluation:
    """Counts over a result's rows, a few thousand at a time.

    Args:
      output: a published result of Parquet.
      truth: a kept column, or the path of a file as ``read_truth`` takes it.
      column: the file's column of classes.

    Raises:
      UsageError: no such result, column or file, or one that this cannot be told of.
    """
    result = _read_result(absolute_output(output))
    schema = result.schema()
    if truth not in schema.names:
        return _by_file(result, _file(truth, column, schema, result))
    if column is not None:
        raise UsageError(f"--truth_column {column}: --truth {truth} is a column of the result already")
    _check_column(schema, truth, result.own_columns)
    return _by_column(result, truth)


def _read_result(output: str) -> _Result:
    try:
        manifest = require_manifest(output)
        files, metadata = manifest["files"], manifest["metadata"]
        shards = tuple(file["name"] for file in files if file["kind"] == "data")
        failures = tuple(file["name"] for file in files if file["kind"] == "failures")
        failed = manifest["rows"]["failed"]
    except (ValueError, KeyError, TypeError) as error:
        raise UsageError(f"OUTPUT {output!r}: {layout.MANIFEST} is damaged: {error}") from error
    if not shards or not all(name.endswith(".parquet") for name in shards):
        raise UsageError(f"OUTPUT {output!r}: evaluate reads Parquet, which this is not: {shards[:1]}")
    if schema.NUM_CLASSES not in metadata:
        raise UsageError(f"OUTPUT {output!r}: its rows have embeddings and no classes")
    own = own_columns_by_metadata(metadata)
    return _Result(output, shards, failures, failed, schema.LABELS_SHA256 in metadata, own)


def _by_column(result: _Result, column: str) -> Evaluation:
    by_id = _column_has_ids(result, column)
    if not (by_id or result.has_names):
        raise UsageError(
            f"--truth {column}: its values are no class ids, and the result's classes have no names"
        )
    counts = TruthCounts()
    _count_rows(counts, result, column, lambda values: _as_text(values, by_id), by_id)
    counts.failed = result.failed
    return Evaluation(counts, "column", None)


def _by_file(result: _Result, truth: Truth) -> Evaluation:
    counts = TruthCounts()
    _count_rows(counts, result, truth.key, lambda keys: _looked_up(keys, truth), truth.by_id)
    _count_failures(counts, result, truth)
    return Evaluation(counts, truth.key, truth.unmatched)


def _check_column(schema: pa.Schema, column: str, own: frozenset[str]) -> None:
    if column in own:
        raise UsageError(f"--truth {column}: that is what beamlabel wrote; name a kept column, or ./{column}")
    check_class_type(schema.field(column).type, column)


def _file(truth: str, column: str | None, schema: pa.Schema, result: _Result) -> Truth:
    kept = ", ".join(name for name in schema.names if name not in result.own_columns) or "none"
    try:
        is_there = storage.exists(truth)
    except (OSError, ValueError) as error:
        raise UsageError(f"--truth {truth!r}: {error}") from error
    if not is_there:
        raise UsageError(f"--truth {truth!r}: neither a kept column of the result ({kept}) nor a file")
    return read_truth(truth, column, has_names=result.has_names)


def _column_has_ids(result: _Result, column: str) -> bool:
    """Whether the column is one of whole numbers, or its first texts are such."""
    for batch in result.batches([column]):
        values = batch[column]
        if pa.types.is_integer(values.type):
            return True
        if texts := [text for text in values.to_pylist() if text]:
            return are_ids(texts)
    return True


def _as_text(values: pa.Array, by_id: bool) -> pa.Array:
    """A kept column as text, numbers in their shortest form; empty is null."""
    if by_id and not pa.types.is_integer(values.type):
        try:
            values = pc.cast(values, pa.int64())
        except pa.ArrowInvalid as error:
            raise UsageError(f"--truth: the column mixes class ids and names: {error}") from error
    texts = pc.cast(values, pa.string())
    return pc.if_else(pc.equal(texts, ""), None, texts)


def _looked_up(keys: pa.Array, truth: Truth) -> pa.Array:
    return pa.array([truth.find(key) for key in keys.to_pylist()], pa.string())


def _count_rows(
    counts: TruthCounts, result: _Result, column: str, truth_of: Callable[[pa.Array], pa.Array], by_id: bool
) -> None:
    """Counts all rows; ``truth_of`` makes of ``column`` the classes, string, null where there is none."""
    for batch in result.batches([column, "class_ids", *(["labels"] if result.has_names else [])]):
        counts.rows += batch.num_rows
        truth = truth_of(batch[column])
        known = truth.is_valid()
        _count(
            counts,
            truth.filter(known),
            batch["class_ids" if by_id else "labels"].filter(known),
            batch["labels"].filter(known) if by_id and result.has_names else None,
        )


def _count(counts: TruthCounts, truth: pa.Array, predicted: pa.Array, names: pa.Array | None) -> None:
    """Counts rows that have a truth: string[N], against the kept classes: list[N], best first."""
    classes = pc.cast(predicted.flatten(), pa.string())
    lengths = predicted.value_lengths().to_numpy(zero_copy_only=False)
    row = pc.list_parent_indices(predicted).to_numpy(zero_copy_only=False)
    rank = np.arange(len(classes)) - (np.cumsum(lengths) - lengths)[row]
    hit = pc.equal(classes, truth.take(pa.array(row))).to_numpy(zero_copy_only=False)
    best = classes.filter(pa.array(rank == 0))
    counts.evaluated += len(truth)
    counts.correct += int(np.count_nonzero(hit & (rank == 0)))
    # A name may stand for two classes, so one row may hold it twice.
    counts.correct_top += len(np.unique(row[hit & (rank < TOP)]))
    counts.kept = max(counts.kept, int(lengths.max(initial=0)))
    counts.seen.update(pc.unique(classes).to_pylist())
    for pair, count in _counted(truth, best):
        counts.pairs[pair] += count
    if names is not None:
        counts.names.update(pair for pair, _ in _counted(classes, names.flatten()))


def _counted(first: pa.Array, second: pa.Array) -> Iterator[tuple[tuple[str, str], int]]:
    groups = (
        pa.table({"first": first, "second": second})
        .group_by(["first", "second"])
        .aggregate([([], "count_all")])
    )
    for group in groups.to_pylist():
        yield (group["first"], group["second"]), group["count_all"]


def _count_failures(counts: TruthCounts, result: _Result, truth: Truth) -> None:
    for name in result.failures:
        with result.readable(name) as path, storage.open_input(path) as stream:
            for line in stream:
                if truth.find(json.loads(line)[truth.key]) is None:
                    counts.failed_without_truth += 1
                else:
                    counts.failed += 1


def _classes(counts: TruthCounts) -> Iterator[Mapping[str, Any]]:
    """A row for each class of the truth or that was predicted, the commonest first."""
    support: Counter[str] = Counter()
    predicted: Counter[str] = Counter()
    confused: dict[str, tuple[int, str | None]] = {}
    for (truth, taken_for), count in sorted(counts.pairs.items()):
        support[truth] += count
        predicted[taken_for] += count
        if truth != taken_for and count > confused.get(truth, (0, None))[0]:
            confused[truth] = count, taken_for
    for name in sorted(support.keys() | predicted.keys(), key=lambda name: (-support[name], name)):
        correct = counts.pairs[name, name]
        times, other = confused.get(name, (0, None))
        yield {
            "class": name,
            "name": counts.names.get(name),
            "support": support[name],
            "predicted": predicted[name],
            "precision": _ratio(correct, predicted[name]),
            "recall": _ratio(correct, support[name]),
            "most_confused_with": other,
            "confused": times,
        }


def _ratio(part: int, whole: int) -> float | None:
    return part / whole if whole else None
