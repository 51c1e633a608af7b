"""The split into train, validation and test: by content, for each class separately."""

import hashlib

import numpy as np
import pytest

from beamlabel.pipeline.train.rows.split import TEST, TRAIN, VALIDATION, content_order, split_by_content

SHARES = (0.8, 0.1, 0.1)


def contents(count):
    return [hashlib.blake2b(b"%d" % number, digest_size=16).hexdigest() for number in range(count)]


def split(names, strata, seed=0, shares=SHARES):
    groups = np.unique(np.asarray(names, object), return_inverse=True)[1]
    return split_by_content(content_order(names, seed), groups, np.asarray(strata), shares)


def test_copies_are_together_and_each_class_has_its_shares():
    names = contents(1000) * 2  # each image twice
    strata = [int(name, 16) % 3 for name in names]
    found = split(names, strata)
    assert (found[:1000] == found[1000:]).all()
    for stratum in range(3):
        counts = np.bincount(found[np.asarray(strata) == stratum], minlength=3)
        np.testing.assert_allclose(counts / counts.sum(), SHARES, atol=0.01)


def test_it_goes_by_content_and_seed_alone():
    names = contents(500)
    strata = [int(name, 16) % 4 for name in names]
    found = dict(zip(names, split(names, strata), strict=True))
    order = np.random.default_rng(0).permutation(500)
    shuffled = [names[place] for place in order]
    again = split(shuffled, [strata[place] for place in order])
    assert dict(zip(shuffled, again, strict=True)) == found
    other = dict(zip(names, split(names, strata, seed=1), strict=True))
    assert sum(other[name] != found[name] for name in names) > 50


def test_another_class_and_more_of_one_move_few_images():
    """Growing truth moves few images, since their hashes decide."""
    names = contents(2000)
    first = split(names[:1000], [0] * 1000)
    second = split(names, [0] * 2000)[:1000]
    assert (first != second).mean() < 0.06


@pytest.mark.parametrize(
    ("count", "wanted"),
    [(1, {TRAIN}), (2, {TRAIN, TEST}), (3, {TRAIN, TEST}), (4, {TRAIN, VALIDATION, TEST})],
)
def test_few_images_of_a_class(count, wanted):
    assert set(split(contents(count), [0] * count).tolist()) == wanted


@pytest.mark.parametrize("shares", [(0.5, 0.5, 0.0), (0.1, 0.1, 0.8), (0.34, 0.33, 0.33)])
def test_other_shares(shares):
    counts = np.bincount(split(contents(900), [0] * 900, shares=shares), minlength=3)
    np.testing.assert_allclose(counts / 900, shares, atol=0.01)
