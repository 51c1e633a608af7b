"""The summary of one work unit for the report, collected as its rows pass; a few hundred KB at most.

It lies beside the unit's shard, so that publishing a run need not read the rows again. It can be rebuilt from the
shard, without the thumbnails, whose pixels are gone.
"""

from __future__ import annotations

import base64
import functools
import json
import math
from array import array
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any, TypeVar

import numpy as np
import pyarrow as pa

from beamlabel.transforms.decoding.thumbnail import thumbnail
from beamlabel.transforms.prediction_blocks import one_by_one
from beamlabel.transforms.records import LabeledRows, Prediction, PredictionBlock
from beamlabel.transforms.rows import metadata_keys
from beamlabel.transforms.storage.uris import encodable, public_uri
from beamlabel.transforms.writing.embedding_sample import EmbeddingSampler
from beamlabel.transforms.writing.sample_rows import (
    MAX_COMPARED,
    MAX_ROWS,
    Candidate,
    RowSampler,
    margin,
)

T = TypeVar("T")

MAX_TEXT = 300
"""Characters that a report shows of a URI, a reference or a failure's detail."""

MAX_LABEL = 100
"""Characters that a report shows of a label."""

MAX_WHOLE = 2000
"""Characters of a row's URI and labels that are kept for corrections."""

MAX_CLASSES = 5
"""Classes that a report shows of a row."""

ROW_COLUMNS = ("uri", "ref_id", "image_id", "labels", "class_ids", "scores")
"""Columns of an output that ``Summarizer.add_rows`` takes, besides ``embedding``."""

_EXAMPLES = 3
EMBEDDING_STEPS = 1 << 16
"""Steps per 1 in a sum of embeddings."""

# Bytes of pixels that wait: most candidates are displaced before their thumbnails are encoded.
_WAITING_BYTES = 8 << 20


@dataclass(frozen=True)
class SampledRow:
    """A row that a report may show.

    Attributes:
      uri: as in the output, cut to ``MAX_WHOLE`` characters.
      ref_id: as in the output, not cut: it decides the choice.
      labels, scores: the best five as in the output, labels cut to ``MAX_WHOLE`` characters; ``class 7`` if the classes
        have no names; both empty without logits.
      kinds: reasons for the choice, see ``sample_rows``.
      thumbnail: a JPEG in base64; None without pixels.
      image_id: as in the output; empty for rows of schema version 1, which have none.
    """

    uri: str
    ref_id: str
    labels: tuple[str, ...]
    scores: tuple[float, ...]
    kinds: tuple[str, ...] = ()
    thumbnail: str | None = None
    image_id: str = ""

    def candidate(self, metadata: Mapping[str, str], value: T) -> Candidate[T]:
        """The row as a candidate for ``RowSampler``.

        Args:
          metadata: file metadata of the output.
          value: returned if the row is chosen.
        """
        return _candidate(metadata, self.ref_id, self.labels, self.scores, value)


@dataclass(frozen=True)
class UnitSummary:
    """The summary of one unit.

    Attributes:
      labels: rows by best label.
      scores: (score, rows), ascending; scores rounded down by ``rounded_scores``.
      failures: first failures of each reason, with ``uri``, ``ref_id`` and ``detail``.
      rows: candidates for the report, see ``sample_rows``.
      embedding_sum: over all rows, each number in steps of 1 / ``EMBEDDING_STEPS``, so that the sum does not depend on
        the order; None without embeddings, or if one was not finite.
      embeddings: an ``EmbeddingSample`` as plain values; None without embeddings or labels.
    """

    labels: dict[str, int] = field(default_factory=dict)
    scores: list[tuple[float, int]] = field(default_factory=list)
    failures: dict[str, list[dict[str, str | None]]] = field(default_factory=dict)
    rows: list[SampledRow] = field(default_factory=list)
    embedding_sum: list[int] | None = None
    embeddings: dict[str, Any] | None = None

    def to_json(self) -> bytes:
        """Serializes to UTF-8; equal summaries give equal bytes."""
        # asdict would copy everything first and take as long as the thumbnails.
        value = {**vars(self), "rows": [vars(row) for row in self.rows]}
        return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()

    @classmethod
    def from_json(cls, content: bytes) -> UnitSummary:
        """The inverse of ``to_json``."""
        value = json.loads(content)
        names = ("labels", "scores", "kinds")
        rows = [SampledRow(**{**row, **{name: tuple(row[name]) for name in names}}) for row in value["rows"]]
        return cls(
            value["labels"],
            [(score, count) for score, count in value["scores"]],
            value["failures"],
            rows,
            value.get("embedding_sum"),
            value.get("embeddings"),
        )


@dataclass(eq=False)
class _Value:
    """A candidate's value: a function that makes its row, and its pixels, until the row is settled."""

    make: Callable[[], SampledRow]
    pixels: np.ndarray | None
    settled: SampledRow | None = None

    def finish(self) -> SampledRow:
        """The row with its thumbnail; afterwards no data of the prediction's batch are held."""
        if self.settled is None:
            self.settled = self.make()
            if self.pixels is not None:
                picture = base64.b64encode(thumbnail(self.pixels)).decode()
                self.settled = replace(self.settled, thumbnail=picture)
            settled = self.settled
            self.make, self.pixels = lambda: settled, None
        return self.settled


class Summarizer:
    """Collects a ``UnitSummary``; not thread-safe.

    Args:
      metadata: file metadata of the rows' output, which shows whether they have labels and embeddings.
    """

    def __init__(self, metadata: Mapping[str, str] = MappingProxyType({})) -> None:
        self._metadata = metadata
        self._labels: Counter[str] = Counter()
        self._scores = array("f")
        compares = metadata_keys.EMBEDDING_DIM in metadata and metadata_keys.NUM_CLASSES in metadata
        self._sampler: RowSampler[_Value] = RowSampler(MAX_COMPARED if compares else MAX_ROWS)
        self._embeddings = EmbeddingSampler() if compares else None
        self._waiting: list[Candidate[_Value]] = []
        self._waiting_bytes = 0
        self._embedding_sum: np.ndarray | None = None
        self._is_finite = True

    def add(self, prediction: Prediction) -> Prediction:
        """Takes a prediction and returns it without its pixels, which are kept only while it may be chosen."""
        labels: Sequence[str] = ()
        scores: Sequence[float] = ()
        if prediction.class_ids is not None and prediction.scores is not None:
            labels = _best_labels(prediction.labels, prediction.class_ids)
            scores = prediction.scores[:MAX_CLASSES].tolist()
        if prediction.embedding is not None:
            self.add_embeddings(prediction.embedding[np.newaxis])
        ref_id = encodable(prediction.ref.ref_id)
        make = functools.partial(_row, prediction.ref.uri, ref_id, prediction.ref.image_id, labels, scores)
        self._add(ref_id, labels, scores, make, prediction.pixels, prediction.embedding)
        return prediction if prediction.pixels is None else replace(prediction, pixels=None)

    def add_block(self, block: PredictionBlock) -> PredictionBlock:
        """Takes predictions and returns them without their pixels, see ``add``."""
        for prediction in one_by_one(block):
            self.add(prediction)
        return block if block.pixels is None else replace(block, pixels=None)

    def add_rows(self, rows: Iterable[Mapping[str, Any]], embeddings: np.ndarray | None) -> None:
        """Takes rows in the form of the output, without pixels.

        Args:
          rows: each with ``uri`` and ``ref_id``, and with ``image_id``, ``labels``, ``class_ids`` and ``scores`` if the
            output has them.
          embeddings: float[N, D], of the rows; None without embeddings.
        """
        if embeddings is not None and len(embeddings):
            self.add_embeddings(embeddings)
        for place, row in enumerate(rows):
            labels = _best_labels(row.get("labels"), row.get("class_ids") or ())
            scores = (row.get("scores") or ())[:MAX_CLASSES]
            make = functools.partial(_row, row["uri"], row["ref_id"], row.get("image_id"), labels, scores)
            embedding = None if embeddings is None else embeddings[place]
            self._add(row["ref_id"], labels, scores, make, None, embedding)

    def add_batch(self, batch: pa.RecordBatch) -> None:
        """Takes rows in the form of a shard: an Arrow record batch with the output's columns."""
        columns = [name for name in ROW_COLUMNS if name in batch.schema.names]
        embeddings = None
        if "embedding" in batch.schema.names:
            values = batch.column("embedding").flatten()
            embeddings = values.to_numpy(zero_copy_only=False).reshape(batch.num_rows, -1)
        self.add_rows(batch.select(columns).to_pylist(), embeddings)

    def add_labeled(self, rows: LabeledRows) -> None:
        """Takes rows that were labeled from their features; they have no pixels."""
        self.add_batch(rows.batch)

    def add_embeddings(self, embeddings: np.ndarray) -> None:
        """Adds the embeddings of rows, float[N, D], to their sum."""
        if not np.isfinite(embeddings).all():
            self._is_finite = False
            return
        steps = np.rint(embeddings.astype(np.float64) * EMBEDDING_STEPS).astype(np.int64).sum(axis=0)
        self._embedding_sum = steps if self._embedding_sum is None else self._embedding_sum + steps

    def finish(self, failures: Iterable[Mapping[str, str | int | None]]) -> UnitSummary:
        """The summary of all that was added.

        Args:
          failures: of the unit, in order, each with ``reason``, ``uri``, ``ref_id`` and ``detail``.
        """
        candidates = self._sampler.candidates()
        rows = [replace(value.finish(), kinds=tuple(kinds)) for value, kinds in candidates]
        scores = rounded_scores(np.frombuffer(self._scores, np.float32)) if self._scores else []
        total = self._embedding_sum.tolist() if self._embedding_sum is not None and self._is_finite else None
        sample = None if self._embeddings is None else self._embeddings.sample()
        return UnitSummary(
            dict(sorted(self._labels.items())),
            scores,
            _examples(failures),
            rows,
            total,
            None if sample is None else sample.to_json(),
        )

    def _add(
        self,
        ref_id: str,
        labels: Sequence[str],
        scores: Sequence[float],
        row: Callable[[], SampledRow],
        pixels: np.ndarray | None,
        embedding: np.ndarray | None,
    ) -> None:
        value = _Value(row, pixels)
        candidate = _candidate(self._metadata, ref_id, labels, scores, value)
        if candidate.label is not None and candidate.score is not None:
            self._labels[candidate.label] += 1
            self._scores.append(candidate.score)
            if self._embeddings is not None and embedding is not None:
                self._embeddings.offer(candidate.number, candidate.label, embedding)
        if self._sampler.offer(candidate) and pixels is not None:
            self._waiting.append(candidate)
            self._waiting_bytes += pixels.nbytes
            if self._waiting_bytes > _WAITING_BYTES:
                self._settle_waiting()

    def _settle_waiting(self) -> None:
        for candidate in self._waiting:
            if candidate.kinds:
                candidate.value.finish()
        self._waiting, self._waiting_bytes = [], 0


def merge_examples(
    into: dict[str, list[dict[str, str | None]]], more: Mapping[str, Sequence[dict[str, str | None]]]
) -> None:
    """Adds a later unit's examples of failures, up to the limit of each reason."""
    for reason, examples in more.items():
        kept = into.setdefault(reason, [])
        kept += examples[: _EXAMPLES - len(kept)]


def rounded_scores(scores: np.ndarray) -> list[tuple[float, int]]:
    """Counts of float[N] scores, each rounded down to 32 steps between a power of two and the next.

    A histogram whose bins are 1/32 of a power of two above all scores counts rounded and exact scores alike.
    """
    fraction, exponent = np.frexp(np.asarray(scores, np.float64))
    values, counts = np.unique(np.ldexp(np.floor(fraction * 64) / 64, exponent), return_counts=True)
    return [(float(value), int(count)) for value, count in zip(values, counts, strict=True)]


def score_bins(scores: Mapping[float, int], *, probabilities: bool) -> dict[str, Any] | None:
    """A histogram of rounded scores: ``low``, ``width`` of a bin, and ``counts``; None without scores.

    For probabilities it has 32 bins from 0 to 1, otherwise as many as the scores need, at most 65.
    """
    if not scores:
        return None
    if probabilities:
        width, low, high = 1 / 32, 0, 31
    else:
        exponent = math.frexp(max(abs(score) for score in scores))[1]
        width = math.ldexp(1, exponent - 5)
        low, high = math.floor(min(scores) / width), math.floor(max(scores) / width)
    counts = [0] * (high - low + 1)
    for score, count in scores.items():
        counts[min(math.floor(score / width), high) - low] += count
    return {"low": low * width, "width": width, "counts": counts}


def _examples(failures: Iterable[Mapping[str, str | int | None]]) -> dict[str, list[dict[str, str | None]]]:
    found: dict[str, list[dict[str, str | None]]] = {}
    for failure in failures:
        examples = found.setdefault(str(failure["reason"]), [])
        if len(examples) < _EXAMPLES:
            shown = {name: failure.get(name) for name in ("uri", "ref_id", "detail")}
            examples.append({name: None if text is None else cut(str(text)) for name, text in shown.items()})
    return dict(sorted(found.items()))


def _row(
    uri: str, ref_id: str, image_id: str | None, labels: Sequence[str], scores: Sequence[float]
) -> SampledRow:
    """Copies the row's values, since a prediction holds views of its whole batch's arrays."""
    uri = cut(encodable(public_uri(uri)), MAX_WHOLE)
    names = tuple(cut(encodable(label), MAX_WHOLE) for label in labels)
    return SampledRow(uri, ref_id, names, tuple(scores), image_id=encodable(image_id or ""))


def _candidate(
    metadata: Mapping[str, str], ref_id: str, labels: Sequence[str], scores: Sequence[float], value: T
) -> Candidate[T]:
    if not labels:
        return Candidate(ref_id, None, None, value)
    several = metadata.get(metadata_keys.SCORES) == "sigmoid"
    label = cut(encodable(labels[0]), MAX_LABEL)
    return Candidate(ref_id, label, scores[0], value, margin(scores, several=several))


def _best_labels(names: Sequence[str] | None, ids: Sequence[int] | np.ndarray) -> Sequence[str]:
    """The names of the best few classes."""
    return names[:MAX_CLASSES] if names else [class_name(int(class_id)) for class_id in ids[:MAX_CLASSES]]


def class_name(class_id: int) -> str:
    """The label of a class without a name."""
    return f"class {class_id}"


def cut(text: str, limit: int = MAX_TEXT) -> str:
    """Cuts the middle of a text to at most ``limit`` characters, since the end of a URI is more informative."""
    if len(text) <= limit:
        return text
    return f"{text[: limit // 2]} … {text[-(limit // 2 - 3) :]}"
