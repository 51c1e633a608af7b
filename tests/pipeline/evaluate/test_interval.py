"""Wilson's interval, against values of another implementation and against the definition."""

import math

import pytest

from beamlabel.pipeline.evaluate.interval import wilson


@pytest.mark.parametrize(
    ("part", "whole", "low", "high"),
    [
        # SciPy 1.17.1: binomtest(part, whole).proportion_ci(method="wilson").
        (0, 10, 0.0, 0.2775327998628892),
        (5, 10, 0.2365930905125640, 0.7634069094874359),
        (81, 263, 0.2552885198782742, 0.36620957698280004),
    ],
)
def test_known_values(part, whole, low, high):
    assert wilson(part, whole) == pytest.approx((low, high), rel=1e-9)


@pytest.mark.parametrize(("part", "whole"), [(1, 7), (3, 4), (400, 1000), (1, 10**6)])
def test_the_ends_are_where_the_share_is_1_96_deviations_off(part, whole):
    for end in wilson(part, whole):
        assert abs(part / whole - end) == pytest.approx(
            1.959963985 * math.sqrt(end * (1 - end) / whole), rel=1e-6
        )


def test_the_edges():
    assert wilson(0, 0) is None
    assert wilson(0, 5)[0] == 0
    assert wilson(5, 5)[1] == 1
