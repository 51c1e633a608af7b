"""Rows that disagree with their neighbors: the same as in a plain loop over all pairs, for any unit order."""

import random
from collections import Counter

import numpy as np
import pytest

from beamlabel.pipeline.report.links import Links
from beamlabel.pipeline.report.neighbors import Neighborhood, neighbors_of
from beamlabel.pipeline.report.run_sample import RunSample
from beamlabel.transforms.writing.embedding_sample import EmbeddingSample
from beamlabel.transforms.writing.sample_rows import MAX_HELPFUL, MAX_ROWS
from beamlabel.transforms.writing.unit_summary import Summarizer

LINKS = Links({"output": "gs://bucket/out", "options": {}})
METADATA = {"beamlabel.embedding_dim": "16", "beamlabel.num_classes": "3", "beamlabel.scores": "softmax"}
NAMES = ("cat", "dog", "owl")


def clusters(count: int, wrong: dict[int, str], *, seed: int = 0) -> tuple[np.ndarray, list[str]]:
    """Embeddings in three tight clusters, and labels that match their clusters except in some rows."""
    rng = np.random.default_rng(seed)
    centers = rng.standard_normal((3, 16)) * 3
    embeddings = centers[np.arange(count) % 3] + rng.standard_normal((count, 16)) * 0.3
    return embeddings.astype(np.float32), [wrong.get(n, NAMES[n % 3]) for n in range(count)]


def sample_of(embeddings: np.ndarray, labels) -> EmbeddingSample:
    vectors = np.rint(embeddings * (127 / np.abs(embeddings).max(axis=1, keepdims=True))).astype(np.int8)
    return EmbeddingSample(np.arange(len(labels), dtype=np.uint64), tuple(labels), vectors)


def by_pairs(sample: EmbeddingSample) -> dict[int, str]:
    """Number → label of the majority for the rows that disagree, found row by row and pair by pair."""
    found = {}
    vectors = sample.vectors.astype(np.float64)
    for row, own in enumerate(sample.labels):
        cosines = {
            other: float(vectors[row] @ vectors[other])
            / float(np.linalg.norm(vectors[row]) * np.linalg.norm(vectors[other]))
            for other in range(len(vectors))
            if other != row
        }
        nearest = sorted(cosines, key=lambda other: (-cosines[other], other))[:10]
        weights: Counter = Counter()
        for other in nearest:
            weights[sample.labels[other]] += np.exp(cosines[other] / 0.07)
        label, weight = max(weights.items(), key=lambda item: item[1])
        most = sum(sample.labels[other] == label for other in nearest) > 5
        if label != own and weight > sum(weights.values()) / 2 and most:
            found[row] = label
    return found


@pytest.mark.parametrize("spread", [0.3, 3.0])
def test_it_finds_the_same_as_a_plain_loop(spread):
    embeddings, labels = clusters(200, {7: "dog", 20: "cat", 100: "owl"})
    embeddings += np.random.default_rng(1).standard_normal(embeddings.shape).astype(np.float32) * spread
    sample = sample_of(embeddings, labels)
    near = Neighborhood(sample)
    assert (near.rows, near.neighbors) == (200, 10)
    found = near.at_odds(range(200))
    assert {one.number: one.label for one in found} == by_pairs(sample)
    assert found == sorted(found, key=lambda one: -one.disagreement)


def test_the_wrong_ones_are_found_and_no_others():
    wrong = {3: "dog", 31: "owl", 77: "cat"}
    embeddings, labels = clusters(120, wrong)
    found = Neighborhood(sample_of(embeddings, labels)).at_odds(range(120))
    assert {one.number for one in found} == set(wrong)
    for one in found:
        assert (one.label, one.count, one.neighbors) == (NAMES[one.number % 3], 10, 10)
        assert one.disagreement == pytest.approx(1)


def test_copies_are_no_neighbors():
    """Ten copies of a wrong image agree with each other but do not make it right."""
    embeddings, labels = clusters(60, {0: "owl"})
    embeddings = np.concatenate((embeddings, np.repeat(embeddings[:1], 12, axis=0)))
    near = Neighborhood(sample_of(embeddings, [*labels, *["owl"] * 12]))
    assert near.rows == 60
    assert [(one.number, one.label) for one in near.at_odds(range(72))] == [(0, "cat")]
    assert [one.number for one in near.at_odds([65, 70])] == [65]


@pytest.mark.parametrize("rows", [0, 1, 2, 9])
def test_too_few_rows_have_no_neighbors(rows):
    embeddings, labels = clusters(rows, {0: "dog"}) if rows else (np.zeros((0, 16)), [])
    near = Neighborhood(
        EmbeddingSample(np.arange(rows, dtype=np.uint64), tuple(labels), embeddings.astype(np.int8))
    )
    assert near.neighbors == 0 and near.at_odds(range(rows)) == []


def test_how_many_neighbors_decide():
    assert [neighbors_of(rows) for rows in (-1, 0, 8, 9, 50, 100, 10_000)] == [0, 0, 0, 3, 7, 10, 10]


def unit(rows) -> Summarizer:
    """Rows of an output, each from a number, a best label and a margin, with their embeddings."""
    summarizer = Summarizer(METADATA)
    for number, label, gap, embedding in rows:
        others = [name for name in NAMES if name != label]
        row = {
            "uri": f"gs://b/{number}.jpg", "ref_id": f"list#{number}", "image_id": f"{number:032x}",
            "labels": [label, *others], "scores": [0.4 + gap, 0.4, 0.0],
        }  # fmt: skip
        summarizer.add_rows([row], embedding[np.newaxis])
    return summarizer


@pytest.mark.parametrize("cut", [50, 333, 2000])
def test_the_helpful_rows_do_not_depend_on_the_units(cut):
    wrong = dict.fromkeys(range(0, 2000, 30), "owl")
    embeddings, labels = clusters(2000, wrong)
    gaps = np.random.default_rng(3).permutation(2000) / 4000
    rows = [(n, labels[n], float(gaps[n]), embeddings[n]) for n in range(2000)]
    random.Random(cut).shuffle(rows)
    sample = RunSample(METADATA, LINKS)
    for start in range(0, len(rows), cut):
        sample.add(unit(rows[start : start + cut]).finish([]))
    shown, compared = sample.rows(Counter(labels))
    assert compared == {"rows": 2000, "neighbors": 10}
    assert len(shown) == MAX_ROWS
    close = {int(row["image_id"], 16) for row in shown if "close" in row["kinds"]}
    assert close == set(np.argsort(gaps)[:MAX_HELPFUL].tolist())
    odd = [row for row in shown if "at_odds" in row["kinds"]]
    # Of 288 random rows, every thirtieth is clearly wrong: about nine.
    assert 3 < len(odd) <= MAX_HELPFUL
    assert all(int(row["image_id"], 16) in wrong for row in odd)
    assert all((row["neighbors"]["label"], row["neighbors"]["of"]) == ("cat", 10) for row in odd)
    order = [row["image_id"] for row in odd]
    whole = RunSample(METADATA, LINKS)
    whole.add(unit(sorted(rows)[::-1]).finish([]))
    assert [row["image_id"] for row in whole.rows(Counter(labels))[0] if "at_odds" in row["kinds"]] == order


def test_what_is_cut_on_the_page_is_whole_beside_it():
    summarizer = Summarizer({"beamlabel.num_classes": "2", "beamlabel.scores": "softmax"})
    names = ["n" * 101, "short", "e" * 2001]
    uris = ["gs://b/" + "u" * 400, "gs://b/a.jpg", "gs://b/" + "v" * 3000]
    for number, uri in enumerate(uris):
        row = {"uri": uri, "ref_id": f"list#{number}", "labels": names, "scores": [0.5, 0.3, 0.1]}
        summarizer.add_rows([row], None)
    sample = RunSample({}, LINKS)
    sample.add(summarizer.finish([]))
    shown, compared = sample.rows({})
    assert compared is None and len(shown) == 3
    by_ref = {row["ref_id"]: row for row in shown}
    assert [by_ref[f"list#{n}"].get("whole_uri", "not cut") for n in range(3)] == [uris[0], "not cut", None]
    assert all(len(row["uri"]) <= 300 and max(map(len, row["labels"])) == 100 for row in shown)
    assert all(row["whole_labels"] == [names[0], "short", None] for row in shown)
    assert all(row["image_id"] == "" for row in shown)
