"""benchmarks/scale.md agrees with ``benchmarks/scale.py``, which computes from measurements and prices."""

from __future__ import annotations

import importlib
import json
import sys
from pathlib import Path

import pytest

from support.paths import ROOT

sys.path.append(str(ROOT / "benchmarks"))
scale = importlib.import_module("scale")

DATA = ROOT / "benchmarks" / "scale_data"
MEASURED = scale.Measured(DATA / "measured.json")


def prices(factor: float) -> dict[str, float]:
    listed = json.loads((DATA / "prices.json").read_text())["prices"]
    return {name: factor * one["price"] for name, one in listed.items()}


def test_the_page_holds_the_computed_numbers() -> None:
    text = scale.page(DATA / "prices.json", DATA / "measured.json")
    assert f"{scale.BEGIN}\n{text}\n{scale.END}" in scale.PAGE.read_text()


def test_another_price_list_gives_another_page(tmp_path: Path) -> None:
    listed = json.loads((DATA / "prices.json").read_text())
    listed["prices"]["dataflow_vcpu_hour"]["price"] = 100.0
    (tmp_path / "prices.json").write_text(json.dumps(listed))
    page = scale.page(tmp_path / "prices.json", DATA / "measured.json")
    hours = scale.core_hours(MEASURED.modules[0], "float32", scale.MOST)
    assert f"{hours * 100:,.0f}"[:3] in page and page != scale.page(
        DATA / "prices.json", DATA / "measured.json"
    )


def test_all_money_is_of_the_price_list() -> None:
    once, twice = (scale.money(MEASURED, prices(factor), 1000, 10**9) for factor in (1, 2))
    assert twice == pytest.approx({name: 2 * value for name, value in once.items()})
    # A billion reads at 0.0004 per thousand.
    assert once["requests"] == pytest.approx(400, rel=0.05)


def test_units_and_requests_are_at_most_linear() -> None:
    assert [scale.units(count) for count in (1, 64, 65, 10**6, 10**8)] == [1, 1, 2, 427, 10_327]
    million, billion = (scale.requests(MEASURED, count, listed=True) for count in (10**6, 10**9))
    assert all(billion[name] <= 1000 * value for name, value in million.items())


def test_unmeasured_numbers_are_not_computed() -> None:
    demo = MEASURED.modules[2]
    assert scale.core_hours(demo, "bfloat16", 10**9) is None
    assert "bfloat16 | not measured |" in scale.page(DATA / "prices.json", DATA / "measured.json")
