"""Modules whose answers change between calls or with the other images of a batch."""

import itertools

import numpy as np
import pytest

from beamlabel.transforms.inference.artifact import ModuleError
from beamlabel.transforms.inference.probe import probe_batch
from beamlabel.transforms.module.steadiness import check_steady

PIXELS = probe_batch(8, 8)


def colours(pixels):
    return pixels.astype(np.float32).mean(axis=(1, 2)) / 255


def check(ask, **options):
    check_steady(lambda pixels: (ask(pixels), None), PIXELS, (ask(PIXELS), None), **options)


def test_a_steady_module_passes():
    check(colours)
    noise = np.random.default_rng(0)
    check(lambda pixels: colours(pixels) * (1 + noise.uniform(-1e-4, 1e-4)))


def test_a_counter_is_found():
    calls = itertools.count()
    with pytest.raises(ModuleError, match="change from call to call: its graph keeps a state"):
        check(lambda pixels: colours(pixels) + next(calls))


def test_rare_flips_are_found():
    """Three calls agree on all four images once in 4096 times; eleven practically never do."""
    random = np.random.default_rng(6)

    def ask(pixels):
        flipped = random.uniform(size=len(pixels)) < 0.2
        return np.where(flipped[:, None], 1 - colours(pixels), colours(pixels))

    with pytest.raises(ModuleError, match=r"draws random numbers \(RandomUniform\)"):
        check(ask, random_ops=["RandomUniform"])


@pytest.mark.parametrize(
    "company",
    [
        lambda rows: rows - rows.mean(axis=0),
        lambda rows: rows / np.abs(rows).max(),
        lambda rows: rows + np.arange(len(rows))[:, None],
        lambda rows: rows * len(rows),
        lambda rows: np.cumsum(rows, axis=0),
        lambda rows: np.sort(rows, axis=0),
    ],
    ids=["mean", "largest", "place", "count", "running sum", "order"],
)
def test_rows_that_depend_on_others_are_found(company):
    with pytest.raises(ModuleError, match="depend on the other images of their batch"):
        check(lambda pixels: company(colours(pixels)))


def test_less_precise_modules_are_allowed_more():
    noise = np.random.default_rng(0)

    def ask(pixels):
        return colours(pixels) * (1 + noise.uniform(-5e-3, 5e-3))

    check(ask, precision="bfloat16")
    with pytest.raises(ModuleError):
        check(ask)
