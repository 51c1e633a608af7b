"""The rows of a training: published rows with a truth, each image once, split by content."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from beamlabel.pipeline.current.outputs import find_outputs
from beamlabel.pipeline.errors import UsageError
from beamlabel.pipeline.train.rows.base import BaseOutput, base_of
from beamlabel.pipeline.train.rows.gather import EXAMPLES, Gathered, gathered
from beamlabel.pipeline.train.rows.options import RowsOptions
from beamlabel.pipeline.train.rows.shards import all_batches, columns_of
from beamlabel.pipeline.train.rows.split import (
    TEST,
    TRAIN,
    VALIDATION,
    content_order,
    named_splits,
    split_by_content,
)
from beamlabel.pipeline.truth.open_truth import open_truth
from beamlabel.pipeline.truth.options import TruthOptions
from beamlabel.pipeline.truth.problem import Problem
from beamlabel.transforms.inference.artifact import ModuleError
from beamlabel.transforms.own_module.description import check_class_names
from beamlabel.transforms.own_module.head import SIGMOID, SOFTMAX
from beamlabel.transforms.rows.types import is_text


@dataclass(frozen=True, eq=False)
class TrainingRows:
    """Rows with a truth, each image once, sorted by ``content_hash``, then by ``image_id``.

    Attributes:
      table: ``uri``, ``image_id``, ``content_hash``, and ``location`` to fetch the image from, null if unknown.
      classes: class names, sorted.
      targets: int32[N], the class of each row; uint8[N, C] for several classes per image.
      split: uint8[N], index into ``findings.SPLITS``.
      multi_label: whether an image may have several classes.
      problems: problems of truth and rows.
      base: description, in the outputs, of the network whose features they hold.
      shards: the data files; ``shard`` and ``row``, int32[N] and int64[N], give the position of each row in them.
      read: number of rows in the outputs.
      seed: seed of the split.
    """

    table: pa.Table
    classes: tuple[str, ...]
    targets: np.ndarray
    split: np.ndarray
    multi_label: bool
    problems: tuple[Problem, ...]
    base: BaseOutput
    shards: tuple[str, ...]
    shard: np.ndarray
    row: np.ndarray
    read: int
    seed: int

    def __len__(self) -> int:
        return len(self.split)

    def chosen(self, places: np.ndarray) -> TrainingRows:
        """The rows at the positions ``places``, int64[n]."""
        return dataclasses.replace(
            self,
            table=self.table.take(pa.array(places)),
            targets=self.targets[places],
            split=self.split[places],
            shard=self.shard[places],
            row=self.row[places],
        )


def gather_rows(options: RowsOptions, truth: TruthOptions) -> TrainingRows:
    """Reads small columns of the outputs' shards, without embeddings.

    Raises:
      UsageError: there is no such output, embeddings have several bases, or the truth cannot be used; with counts.
      OSError, ValueError: a file cannot be read.
    """
    outputs = find_outputs(options.outputs, "OUTPUT")
    base = base_of(outputs)
    if base.normalized and not options.normalized:
        raise UsageError(
            "the embeddings have L2 length 1 (--normalize_embeddings): use --normalized to train on them; the module "
            "then normalizes its features too"
        )
    columns = columns_of(outputs)
    if options.split_column and options.split_column not in columns.names:
        raise UsageError(
            f"--split_column {options.split_column!r}: no such column; the outputs have {', '.join(columns.names)}"
        )
    if options.split_column:
        _check_is_text(options.split_column, columns.field(options.split_column).type)
    opened = open_truth(
        truth,
        columns,
        manifests=[output.manifest for output in outputs],
        batches=lambda names: all_batches(outputs, names),
    )
    found = gathered(outputs, opened, options.split_column)
    problems = [*opened.problems(), *found.problems]
    return _chosen(found, options, opened.multi_label, problems, base)


def _check_is_text(column: str, kind: pa.DataType) -> None:
    value = kind.value_type if pa.types.is_dictionary(kind) else kind
    if not is_text(value):
        raise UsageError(f"--split_column {column!r} is {kind}: expected text: train, validation or test")


def _chosen(
    found: Gathered, options: RowsOptions, multi_label: bool, problems: list[Problem], base: BaseOutput
) -> TrainingRows:
    """Leaves out rows that cannot be used, and splits the rest."""
    contents = found.table.column("content_hash")
    groups = contents.combine_chunks().dictionary_encode().indices.to_numpy().astype(np.int64)
    kept = np.ones(len(groups), bool)

    different = _disagreeing(groups, found.truths)
    kept &= ~different
    _tell(problems, "images have a copy with another truth and are left out", found, different)
    if not multi_label:
        several = np.array([len(one) > 1 for one in found.combinations], bool)[found.truths]
        if several.any():
            raise UsageError(f"--truth: {int(several.sum())} images have several classes: use --multi_label")
    classes = _classes(found, groups, kept, options.min_images, problems)
    if len(classes) < 2:
        raise UsageError(
            f"--truth: {int(kept.sum())} of {found.read} rows have a usable truth, of {len(classes)} classes "
            f"({', '.join(classes) or 'none'}) with at least {options.min_images} images: 2 classes are needed"
            + _told(problems)
        )
    try:
        check_class_names(classes, SIGMOID if multi_label else SOFTMAX)
    except ModuleError as error:
        raise UsageError(f"--truth: {error}") from error
    targets, has_class = _targets(found, classes, multi_label)
    kept &= has_class
    if options.split_column:
        split, is_split = _by_column(found, groups, kept, options.split_column, problems)
        kept &= is_split
    else:
        order = content_order(contents.to_pylist(), options.seed)
        split = np.full(len(groups), TRAIN, np.uint8)
        places = np.flatnonzero(kept)
        strata = _strata(targets[places])
        split[places] = split_by_content(order[places], groups[places], strata, options.split)
    check_splits(split[kept], targets[kept], classes, problems)
    return TrainingRows(
        table=found.table.select(["uri", "image_id", "content_hash", "location"]).filter(pa.array(kept)),
        classes=classes,
        targets=targets[kept],
        split=split[kept],
        multi_label=multi_label,
        problems=tuple(problem for problem in problems if problem.count),
        base=base,
        shards=found.shards,
        shard=found.shard[kept],
        row=found.row[kept],
        read=found.read,
        seed=options.seed,
    )


def _disagreeing(groups: np.ndarray, truths: np.ndarray) -> np.ndarray:
    """bool[N]: rows with the same content but different truths."""
    count = int(groups.max()) + 1 if len(groups) else 0
    low, high = np.full(count, np.iinfo(np.int64).max), np.full(count, -1)
    np.minimum.at(low, groups, truths)
    np.maximum.at(high, groups, truths)
    return (low != high)[groups]


def _classes(
    found: Gathered, groups: np.ndarray, kept: np.ndarray, min_images: int, problems: list[Problem]
) -> tuple[str, ...]:
    """The classes with enough images, counting copies once."""
    first = np.unique(groups[kept], return_index=True)[1]
    counts = np.bincount(found.truths[kept][first], minlength=len(found.combinations))
    images: dict[str, int] = {}
    for combination, count in zip(found.combinations, counts.tolist(), strict=True):
        for name in combination:
            images[name] = images.get(name, 0) + count
    few = sorted(name for name, count in images.items() if 0 < count < min_images)
    if few:
        what = f"classes have fewer than {min_images} images and are left out"
        problems.append(Problem(what, len(few), tuple(few[:EXAMPLES])))
    return tuple(sorted(name for name, count in images.items() if count >= min_images))


def _targets(found: Gathered, classes: Sequence[str], multi_label: bool) -> tuple[np.ndarray, np.ndarray]:
    """The classes of all rows as numbers, and whether each row has one."""
    place = {name: number for number, name in enumerate(classes)}
    if multi_label:
        table = np.zeros((len(found.combinations), len(classes)), np.uint8)
        for row, combination in enumerate(found.combinations):
            table[row, [place[name] for name in combination if name in place]] = 1
        targets = table[found.truths]
        return targets, targets.any(axis=1)
    single = np.array([place.get(combination[0], -1) for combination in found.combinations], np.int32)
    targets = single[found.truths]
    return targets, targets >= 0


def _strata(targets: np.ndarray) -> np.ndarray:
    """The class that decides the split of each row: the rarest of several."""
    if targets.ndim == 1:
        return targets.astype(np.int64)
    counts = targets.sum(axis=0, dtype=np.int64)
    return np.where(targets, counts, np.iinfo(np.int64).max).argmin(axis=1)


def _by_column(
    found: Gathered, groups: np.ndarray, kept: np.ndarray, column: str, problems: list[Problem]
) -> tuple[np.ndarray, np.ndarray]:
    """The splits in a column, and the rows to use: among copies, only those in the split furthest from train."""
    try:
        split = named_splits(found.table.column("split"))
    except ValueError as error:
        raise UsageError(f"--split_column {column!r}: {error}") from error
    nowhere = kept & (split < 0)
    _tell(problems, f"rows have no {column} and are left out", found, nowhere)
    furthest = np.full(int(groups.max()) + 1 if len(groups) else 0, -1)
    np.maximum.at(furthest, groups[kept], split[kept])
    crossing = kept & (split >= 0) & (split < furthest[groups])
    _tell(problems, f"images have a copy in another {column} and are left out", found, crossing)
    return split.astype(np.uint8), (split >= 0) & ~crossing


def check_splits(
    split: np.ndarray, targets: np.ndarray, classes: Sequence[str], problems: list[Problem]
) -> None:
    """Checks that every class can be trained; classes without test images become a problem.

    Args:
      split, targets, classes: see ``TrainingRows``.
      problems: known problems; new ones are appended.

    Raises:
      UsageError: there is no image for training or for validation, or a class has no image for training.
    """
    sizes = np.bincount(split, minlength=3)
    if not (sizes[TRAIN] and sizes[VALIDATION]):
        raise UsageError(
            f"--truth: {len(split)} images of {len(classes)} classes give {sizes[TRAIN]} to train and "
            f"{sizes[VALIDATION]} to validation: more images are needed, at least 4 of one class"
            + _told(problems)
        )
    for where in (TRAIN, TEST):
        there = targets[split == where]
        counts = there.sum(axis=0) if targets.ndim == 2 else np.bincount(there, minlength=len(classes))
        missing = [classes[place] for place in np.flatnonzero(counts == 0).tolist()]
        if not missing or (where == TEST and not sizes[TEST]):
            continue
        if where == TRAIN:
            raise UsageError(
                f"--truth: no training image of {', '.join(missing[:EXAMPLES])} ({len(missing)} classes)"
                + _told(problems)
            )
        problems.append(Problem("classes have no test image", len(missing), tuple(missing[:EXAMPLES])))


def _tell(problems: list[Problem], what: str, found: Gathered, which: np.ndarray) -> None:
    places = np.flatnonzero(which)
    if len(places):
        examples = found.table.column("uri").take(pa.array(places[:EXAMPLES])).to_pylist()
        problems.append(Problem(what, len(places), tuple(examples)))


def _told(problems: Sequence[Problem]) -> str:
    """The problems, as the end of a message."""
    return "".join(f"; {problem.count} {problem.what}" for problem in problems if problem.count)
