"""The soak's detection of growth, and its photographs; tests/pipeline/job/test_soak.py tests its runs."""

from __future__ import annotations

import importlib
import importlib.util
import os
import random
import sys
import threading
from pathlib import Path

import pytest
from PIL import Image

from support.jobs import photos
from support.paths import ROOT

sys.path.append(
    str(ROOT / "benchmarks")
)  # as for a script there; at the end, so that it hides no other module
pytest.importorskip("scipy")
growth, soak = map(importlib.import_module, ("growth", "soak"))


def samples(grows: str = "", by: float = 0.0) -> list:
    """Ten minutes of noise with one attribute that grows by a share."""
    rng = random.Random(7)
    found = []
    for number in range(200):
        share = {
            name: 1 + rng.uniform(-0.05, 0.05) for name in ("pss_mb", "rss_mb", "threads", "descriptors")
        }
        if grows:
            share[grows] += by * number / 200
        # An initial rise is not growth.
        filling = min(1.0, 0.5 + number / 80)
        values = {name: 400 * filling * one for name, one in share.items()}
        found.append(
            growth.Sample(3.0 * number, values["pss_mb"], values["rss_mb"], round(values["threads"]),
                          round(values["descriptors"]), 3)
        )  # fmt: skip
    return found


def test_noise_and_warming_up_are_no_growth() -> None:
    assert soak.show_growth(samples()) == []


@pytest.mark.parametrize("name", ["pss_mb", "rss_mb", "threads", "descriptors"])
def test_growth_is_found(name: str) -> None:
    (problem,) = soak.show_growth(samples(name, 0.15))
    assert problem.startswith(name)
    trend = growth.trend(growth.warmed_up(samples(name, 0.15)), name)
    assert trend.growth == pytest.approx(0.15 * 0.75 * 400, rel=0.2)
    assert 0 < trend.least < trend.growth


def test_too_few_samples_are_a_problem() -> None:
    assert soak.show_growth(samples()[:8])
    assert soak.show_growth([])


def test_a_sample_counts_this_process() -> None:
    read, write = os.pipe()
    over = threading.Event()
    before = growth.sample({os.getpid()}, 0.0)
    pipes = [os.pipe() for _ in range(20)]
    threads = [threading.Thread(target=over.wait) for _ in range(5)]
    for thread in threads:
        thread.start()
    after = growth.sample({os.getpid(), 1 << 30}, 1.0)
    over.set()
    for pair in [*pipes, (read, write)]:
        for one in pair:
            os.close(one)
    assert after.descriptors - before.descriptors == 40
    assert after.threads - before.threads == 5
    assert after.processes == 2 and after.rss_mb >= after.pss_mb > 10


def test_photographs_are_of_many_formats(tmp_path: Path) -> None:
    made = soak.many_formats(photos(tmp_path / "photos", 30), tmp_path / "formats")
    assert len(set(made)) == 30
    found = {Image.open(path).format for path in made}
    assert {"JPEG", "PNG", "WEBP", "GIF", "TIFF", "AVIF", "BMP", "JPEG2000"} <= found
