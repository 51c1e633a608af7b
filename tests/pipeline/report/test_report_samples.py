"""The content of a report: sampled, summarized and bounded for any order and number of rows."""

import dataclasses
import hashlib
import io
import random
import weakref
from collections import Counter

import numpy as np
import pytest
from PIL import Image

from beamlabel.transforms.decoding.thumbnail import MAX_BYTES, MAX_SIDE, thumbnail
from beamlabel.transforms.records import Prediction
from beamlabel.transforms.writing.sample_rows import MAX_CANDIDATES, Candidate, RowSampler
from beamlabel.transforms.writing.unit_summary import Summarizer, UnitSummary, rounded_scores, score_bins
from support.outputs import prediction


def with_pixels(row: int, side: int) -> Prediction:
    pixels = np.random.default_rng(row).integers(0, 256, (side, side, 3), np.uint8)
    return dataclasses.replace(prediction(row), pixels=pixels)


def test_pixels_go_no_further_than_the_summary():
    summarizer = Summarizer()
    for row in range(40):
        taken = summarizer.add(with_pixels(row, 24))
        assert taken.pixels is None
        assert taken.ref == prediction(row).ref
    summary = summarizer.finish([])
    assert len(summary.rows) > 20 and all(row.thumbnail for row in summary.rows)


def test_the_pixels_that_wait_are_bounded():
    summarizer = Summarizer()
    seen: list = []
    for row in range(300):
        given = with_pixels(row, 300)
        seen.append(weakref.ref(given.pixels))
        summarizer.add(given)
        del given
        assert sum(pixels() is not None for pixels in seen) * 300 * 300 * 3 <= (8 << 20) + 300 * 300 * 3
    assert all(row.thumbnail for row in summarizer.finish([]).rows)


def test_a_summary_does_not_depend_on_the_order():
    def summary(rows) -> bytes:
        summarizer = Summarizer()
        for row in rows:
            summarizer.add(with_pixels(row, 24))
        return summarizer.finish([]).to_json()

    rows = list(range(500))
    expected = summary(rows)
    random.Random(0).shuffle(rows)
    assert summary(rows) == expected
    assert len(UnitSummary.from_json(expected).rows) <= MAX_CANDIDATES


def sampler_of(rows) -> RowSampler:
    sampler: RowSampler = RowSampler()
    for ref_id, name, score in rows:
        sampler.offer(Candidate(ref_id, name, score, ref_id))
    return sampler


def some_rows(count: int, labels: int, seed: int = 0) -> list:
    rng = np.random.default_rng(seed)
    names = [f"label {n}" for n in np.minimum(rng.zipf(1.3, count), labels)]
    return [(f"list#{row}", names[row], float(rng.integers(0, 1000)) / 1000) for row in range(count)]


@pytest.mark.parametrize("labels", [3, 100, 5000])
def test_the_order_of_rows_does_not_matter(labels):
    rows = some_rows(6000, labels)
    counts = Counter(name for _, name, _ in rows)
    expected = sampler_of(rows).chosen(counts)
    for seed in range(3):
        random.Random(seed).shuffle(rows)
        assert sampler_of(rows).chosen(counts) == expected


def test_the_chosen_rows_are_the_best_of_all():
    rows = some_rows(5000, 30)
    counts = Counter(name for _, name, _ in rows)
    chosen = sampler_of(rows).chosen(counts)
    by_kind = {
        kind: {ref for ref, kinds in chosen if kind in kinds} for kind in ("top", "uncertain", "random")
    }
    least = sorted(rows, key=lambda row: (row[2], row[0]))[:24]
    assert by_kind["uncertain"] == {row[0] for row in least}
    tops = set()
    for name in counts:
        best = sorted((row for row in rows if row[1] == name), key=lambda row: (-row[2], row[0]))
        tops |= {row[0] for row in best[:3]}
    assert by_kind["top"] == tops
    assert len(chosen) == 144
    at_random = sorted(rows, key=lambda row: hashlib.blake2b(row[0].encode(), digest_size=8).digest())
    assert by_kind["random"] >= {row[0] for row in at_random[:24]}


@pytest.mark.parametrize("count", [1, 24, 100, 144])
@pytest.mark.parametrize("labels", [1, 200])
def test_a_few_rows_are_all_chosen(count, labels):
    rows = some_rows(count, labels)
    assert len(sampler_of(rows).chosen(Counter(name for _, name, _ in rows))) == count


def test_candidates_are_bounded_with_any_number_of_labels():
    sampler: RowSampler = RowSampler()
    candidates = [Candidate(f"list#{n}", f"label {n % 9000}", n / 30000, None) for n in range(30000)]
    for candidate in candidates:
        sampler.offer(candidate)
    alive = sum(bool(candidate.kinds) for candidate in candidates)
    assert alive <= MAX_CANDIDATES
    assert len(sampler.chosen({})) <= 144


@pytest.mark.parametrize("labels", [3, 40, 5000])
@pytest.mark.parametrize("cut", [1, 7, 64, 1000, 6000])
def test_it_does_not_matter_how_rows_are_divided(labels, cut):
    rows = some_rows(6000, labels)
    counts = Counter(name for _, name, _ in rows)
    by_ref = {row[0]: row for row in rows}
    merged: RowSampler = RowSampler()
    for start in range(0, len(rows), cut):
        for ref_id, kinds in sampler_of(rows[start : start + cut]).candidates():
            merged.offer(Candidate(*by_ref[ref_id], ref_id), kinds)
    assert sorted(merged.chosen(counts)) == sorted(sampler_of(rows).chosen(counts))


def test_every_shown_label_shows_three():
    rows = [(f"list#{n}", f"label {n % 32}", n / 3200) for n in range(3 * 32)]
    rows += [(f"list#{n}", "label 0", n / 3200) for n in range(96, 3000)]
    chosen = {
        ref for ref, kinds in sampler_of(rows).chosen(Counter(row[1] for row in rows)) if "top" in kinds
    }
    shown = Counter(name for ref, name, _ in rows if ref in chosen)
    assert shown == {f"label {n}": 3 for n in range(32)}


def test_a_row_that_is_in_the_input_twice():
    rows = [("list#1", "cat", 0.5)] * 100
    assert len(sampler_of(rows).chosen({"cat": 100})) <= 100


@pytest.mark.parametrize("scores", [
    np.random.default_rng(0).uniform(0, 1, 5000),
    np.array([0.0, 1.0, 1 / 32, np.nextafter(1 / 32, 0), 0.5]),
], ids=["uniform", "edges"])  # fmt: skip
def test_rounding_moves_no_score_to_another_bin(scores):
    scores = scores.astype(np.float32)
    rounded = dict(rounded_scores(scores))
    assert sum(rounded.values()) == len(scores)
    exact, _ = np.histogram(scores, 32, (0, 1))
    assert score_bins(rounded, probabilities=True)["counts"] == exact.tolist()


@pytest.mark.parametrize(("low", "high"), [(-3, 20), (5, 6), (-1e9, 1e-9), (0, 0), (-7, -2)])
def test_logits_get_a_few_bins_that_hold_them_all(low, high):
    logits = np.random.default_rng(1).uniform(low, high, 1000).astype(np.float32)
    bins = score_bins(dict(rounded_scores(logits)), probabilities=False)
    assert bins is not None and len(bins["counts"]) <= 65
    edges = bins["low"] + bins["width"] * np.arange(len(bins["counts"]) + 1)
    assert bins["counts"] == np.histogram(logits, edges)[0].tolist()
    assert sum(bins["counts"]) == 1000


@pytest.mark.parametrize("shape", [(32, 32), (160, 160), (224, 224), (600, 600), (161, 500), (1, 1)])
def test_a_thumbnail_of_any_picture_is_small(shape):
    noise = np.random.default_rng(0).integers(0, 256, (*shape, 3), np.uint8)
    data = thumbnail(noise)
    width, height = Image.open(io.BytesIO(data)).size
    assert len(data) <= MAX_BYTES
    assert min(width, height) <= MAX_SIDE
    assert width / height == pytest.approx(shape[1] / shape[0], rel=0.02)
