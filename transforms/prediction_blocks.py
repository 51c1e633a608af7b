"""Converts predictions between arrays, the job's form, and single elements, the form in other pipelines."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence

import numpy as np

from beamlabel.transforms.records import Prediction
from beamlabel.transforms.row_batches import PredictionBlock


def one_by_one(block: PredictionBlock) -> list[Prediction]:
    """The predictions of a block, in its order; their arrays are views of the block's."""
    return [
        Prediction(
            ref,
            info,
            None if block.class_ids is None else block.class_ids[place],
            None if block.scores is None else block.scores[place],
            None if block.labels is None else tuple(block.labels[place]),
            None if block.embeddings is None else block.embeddings[place],
            block.computed_by,
            None if block.pixels is None else block.pixels[place],
        )
        for place, (ref, info) in enumerate(zip(block.refs, block.infos, strict=True))
    ]


def gathered(predictions: Sequence[Prediction]) -> PredictionBlock:
    """Gathers predictions of one engine into a block, without their pixels.

    Raises:
      ValueError: some predictions lack an array that others have, or have it in another shape.
    """
    return PredictionBlock(
        [one.ref for one in predictions],
        [one.info for one in predictions],
        _matrix([one.class_ids for one in predictions], np.int32, "class_ids"),
        _matrix([one.scores for one in predictions], np.float32, "scores"),
        _texts([one.labels for one in predictions]),
        _matrix([one.embedding for one in predictions], np.float32, "embedding"),
        predictions[0].computed_by if predictions else "",
    )


def in_blocks(predictions: Iterable[Prediction | PredictionBlock], size: int) -> Iterator[PredictionBlock]:
    """Passes blocks on, and gathers single predictions into blocks of ``size``, each of one engine.

    Raises:
      ValueError: see ``gathered``.
    """
    waiting: list[Prediction] = []
    for one in predictions:
        ends = isinstance(one, PredictionBlock) or (waiting and one.computed_by != waiting[0].computed_by)
        if waiting and (ends or len(waiting) == size):
            yield gathered(waiting)
            waiting = []
        if isinstance(one, PredictionBlock):
            yield one
        else:
            waiting.append(one)
    if waiting:
        yield gathered(waiting)


def joined(blocks: Sequence[PredictionBlock]) -> PredictionBlock:
    """Joins blocks of one module and one engine into one, without their pixels.

    Raises:
      ValueError: they do not have the same arrays.
    """
    if len(blocks) == 1:
        return blocks[0]

    def stacked(array_of: Callable[[PredictionBlock], np.ndarray | None], name: str) -> np.ndarray | None:
        arrays = [array_of(block) for block in blocks]
        found = [array for array in arrays if array is not None]
        if not found:
            return None
        if len(found) < len(arrays) or len({array.shape[1:] for array in found}) > 1:
            raise ValueError(
                f"{name}: predictions have different arrays: {[array is not None and array.shape for array in arrays]}"
            )
        return np.concatenate(found)

    return PredictionBlock(
        list(itertools.chain.from_iterable(block.refs for block in blocks)),
        list(itertools.chain.from_iterable(block.infos for block in blocks)),
        stacked(lambda block: block.class_ids, "class_ids"),
        stacked(lambda block: block.scores, "scores"),
        stacked(lambda block: block.labels, "labels"),
        stacked(lambda block: block.embeddings, "embedding"),
        blocks[0].computed_by,
    )


def _matrix(rows: Sequence[np.ndarray | None], dtype: type[np.generic], name: str) -> np.ndarray | None:
    """Stacks vectors to a contiguous ``dtype[len(rows), width]``; None if there are none."""
    found = [row for row in rows if row is not None]
    if not found:
        return None
    matrix = np.empty((len(rows), *found[0].shape), dtype)
    for place, row in enumerate(rows):
        if row is None or row.shape != matrix.shape[1:]:
            shape = None if row is None else row.shape
            raise ValueError(f"{name}: a prediction has shape {shape}, expected {matrix.shape[1:]}")
        matrix[place] = row
    return matrix


def _texts(rows: Sequence[tuple[str, ...] | None]) -> np.ndarray | None:
    found = [row for row in rows if row is not None]
    if not found:
        return None
    width = len(found[0])
    if any(row is None or len(row) != width for row in rows):
        raise ValueError(f"labels: a prediction does not have {width} labels")
    texts = np.empty((len(rows), width), object)
    texts[:] = [list(row or ()) for row in rows]
    return texts
