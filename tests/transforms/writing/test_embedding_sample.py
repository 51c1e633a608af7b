"""The sample of embeddings in units: the rows' numbers decide, not their order or the units."""

import dataclasses
import json
import random

import numpy as np
import pyarrow as pa
import pytest

from beamlabel.transforms.records import LabeledRows
from beamlabel.transforms.rows.record_batch import to_record_batch
from beamlabel.transforms.writing.embedding_sample import (
    MAX_BYTES,
    MAX_ROWS,
    EmbeddingSample,
    EmbeddingSampler,
    direction,
    sample_rows,
)
from beamlabel.transforms.writing.sample_rows import margin, row_number
from beamlabel.transforms.writing.unit_summary import Summarizer
from support.outputs import FULL, prediction

METADATA = {"beamlabel.embedding_dim": "8", "beamlabel.num_classes": "5", "beamlabel.scores": "softmax"}


def sample_of(rows) -> EmbeddingSample:
    sampler = EmbeddingSampler()
    for number, label, embedding in rows:
        sampler.offer(number, label, embedding)
    sample = sampler.sample()
    assert sample is not None
    return sample


def some_rows(count: int, dimension: int) -> list:
    rng = np.random.default_rng(0)
    embeddings = rng.standard_normal((count, dimension)).astype(np.float32)
    return [(row_number(f"list#{n}"), f"label {n % 7}", embeddings[n]) for n in range(count)]


@pytest.mark.parametrize("dimension", [8, 1280])
def test_it_is_the_smallest_numbers_in_any_order(dimension):
    rows = some_rows(MAX_ROWS + 500, dimension)
    expected = sorted(rows, key=lambda row: row[0])[: sample_rows(dimension)]
    random.Random(1).shuffle(rows)
    sample = sample_of(rows)
    assert sample.numbers.tolist() == [row[0] for row in expected]
    assert list(sample.labels) == [row[1] for row in expected]
    assert (sample.vectors == [direction(row[2]) for row in expected]).all()
    assert sample.vectors.nbytes <= MAX_BYTES


@pytest.mark.parametrize("cut", [1, 700, 2500])
def test_it_does_not_matter_how_rows_are_divided(cut):
    rows = some_rows(2600, 4)[: 20 if cut == 1 else None]
    parts = [sample_of(rows[start : start + cut]) for start in range(0, len(rows), cut)]
    merged = parts[0]
    for part in parts[1:]:
        merged = merged.merged(EmbeddingSample.from_json(json.loads(json.dumps(part.to_json()))))
    assert merged.to_json() == sample_of(rows).to_json()


def test_a_direction_is_that_of_the_embedding():
    rng = np.random.default_rng(2)
    for scale in (1e-6, 1.0, 1e6):
        embedding = (rng.exponential(1, 1280) * scale).astype(np.float32)
        vector = direction(embedding)
        assert vector is not None and np.abs(vector).max() == 127
        exact, found = embedding.astype(np.float64), vector.astype(np.float64)
        cosine = exact @ found / np.linalg.norm(exact) / np.linalg.norm(found)
        assert np.degrees(np.arccos(min(cosine, 1))) < 1


@pytest.mark.parametrize("value", [0.0, np.nan, np.inf, -np.inf, 1e-40])
def test_a_vector_without_a_direction_is_left_out(value):
    embedding = np.full(4, value, np.float32)
    assert direction(embedding) is None
    sampler = EmbeddingSampler()
    sampler.offer(1, "cat", embedding)
    assert sampler.sample() is None


def test_rows_of_a_shard_give_the_summary_of_the_predictions():
    """Except for the thumbnails, ``beamlabel report`` and a relabeling run get the same summary as a labeling run."""
    predictions = [prediction(row) for row in range(60)]
    by_prediction, by_batch = Summarizer(METADATA), Summarizer(METADATA)
    for one in predictions:
        by_prediction.add(one)
    batch = to_record_batch(predictions, FULL)
    for start, end in ((0, 13), (13, 60)):
        part = LabeledRows("unit", np.arange(start, end), batch.slice(start, end - start))
        by_batch.add_labeled(part)
    expected = by_prediction.finish([])
    assert by_batch.finish([]).to_json() == expected.to_json()
    assert expected.embeddings is not None and len(expected.embeddings["labels"]) == 60
    assert {row.image_id for row in expected.rows} == {one.ref.image_id for one in predictions}


@pytest.mark.parametrize("missing", ["beamlabel.embedding_dim", "beamlabel.num_classes"])
def test_no_sample_without_labels_or_embeddings(missing):
    summarizer = Summarizer({name: value for name, value in METADATA.items() if name != missing})
    one = prediction(1)
    lacking = (
        {"embedding": None}
        if missing.endswith("dim")
        else {"class_ids": None, "scores": None, "labels": None}
    )
    summarizer.add(dataclasses.replace(one, **lacking))
    assert summarizer.finish([]).embeddings is None


def test_a_uri_keeps_no_credentials_and_no_more_than_is_bounded():
    one = prediction(1)
    ref = dataclasses.replace(one.ref, uri="https://user:secret@host/" + "a" * 5000)
    batch = to_record_batch([one], FULL)
    column = batch.schema.get_field_index("uri")
    kind = batch.schema.field("uri")
    batch = batch.set_column(column, kind, pa.array([ref.uri]))
    for add in (
        lambda s: s.add(dataclasses.replace(one, ref=ref)),
        lambda s: s.add_batch(batch),
    ):
        summarizer = Summarizer(METADATA)
        add(summarizer)
        (row,) = summarizer.finish([]).rows
        assert "secret" not in row.uri and len(row.uri) == 2000


@pytest.mark.parametrize(("scores", "several", "expected"), [
    ((0.5, 0.25, 0.25), False, 0.25),
    ((7.0, -1.0), False, 8.0),
    ((0.9, 0.6, 0.2), True, 0.1),
    ((0.9, 0.1), True, 0.4),
    ((0.9,), False, None),
    ((), True, None),
    ((float("nan"), 0.1), False, None),
    ((float("inf"), 0.1), False, None),
])  # fmt: skip
def test_margins(scores, several, expected):
    found = margin(scores, several=several)
    assert found == (None if expected is None else pytest.approx(expected))
