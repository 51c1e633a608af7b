"""The conditions under which failures fail a run."""

import pytest

from beamlabel.pipeline.output.manifest import error_rate, within_error_rate


@pytest.mark.parametrize(
    ("predicted", "failed", "rate", "least", "within"),
    [
        (0, 0, 0.0, 5, True),
        (100, 0, 0.0, 5, True),
        (1, 4, 0.05, 5, True),
        (1, 5, 0.05, 5, False),
        (95, 5, 0.05, 5, True),
        (94, 6, 0.05, 5, False),
        (9, 1, 0.05, 1, False),
        (9, 1, 0.0, 5, True),
        (0, 1, 0.05, 5, False),
        (0, 1, 1.0, 5, True),
        (0, 9, 0.99, 100, False),
    ],
)
def test_a_handful_does_not_fail_a_run_that_predicts(predicted, failed, rate, least, within):
    rows = {"input": 1000, "predicted": predicted, "failed": failed, "skipped": 1000 - predicted - failed}
    assert within_error_rate(rows, rate, least) is within
    assert error_rate(rows) == (failed / (predicted + failed) if failed else 0)
