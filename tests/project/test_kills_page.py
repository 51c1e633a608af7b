"""``benchmarks/flink_kills.md`` has the text of its generator around the rows that were measured."""

import importlib
import re
import sys

from support.paths import ROOT

sys.path.append(str(ROOT / "benchmarks"))
flink_kills = importlib.import_module("flink_kills")

ROW = r"(?:\| .* \|\n)+"


def pattern(text: str) -> str:
    """Matches the text with any value in the place of each field."""
    return re.sub(r"\\\{[^}]*\}", "[^ ]+", re.escape(text))


def test_the_page_is_that_of_the_generator() -> None:
    page = flink_kills.REPORT.read_text()
    assert flink_kills.REPORT == ROOT / "benchmarks" / "flink_kills.md"
    assert re.fullmatch(pattern(flink_kills._HEAD) + ROW + pattern(flink_kills._TAIL), page)
