"""The steps of ``docs/quickstart.md`` run in order on generated images."""

import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow.dataset as ds
import pytest
from PIL import Image

from support.jobs import photos
from support.paths import ROOT

pytest.importorskip("tensorflow")

PAGE = (ROOT / "docs" / "quickstart.md").read_text()
BLOCKS = re.findall(r"^```(bash|python)\n(.*?)^```$", PAGE, re.DOTALL | re.MULTILINE)


def add_photos(directory: Path, first: int, last: int) -> None:
    for number, made in enumerate(photos(directory.parent / "made", last)):
        if number >= first:
            (directory / f"{number}.png").write_bytes(made.read_bytes())


def write_sorted(directory: Path) -> None:
    """Writes images of two classes that differ in color."""
    for channel, name in enumerate(("whole", "dented")):
        (directory / name).mkdir(parents=True)
        for number in range(16):
            pixels = np.random.default_rng([channel, number]).normal(90, 40, (32, 32, 3))
            pixels[..., channel] += 80
            Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(directory / name / f"{number}.png")


@pytest.fixture(scope="module")
def place(tmp_path_factory, cache):
    """The directory in which all steps have run, and their output."""
    directory = tmp_path_factory.mktemp("quickstart")
    (directory / "photos").mkdir()
    add_photos(directory / "photos", 0, 3)
    write_sorted(directory / "sorted")
    (directory / ".venv" / "bin").mkdir(parents=True)
    program = directory / ".venv" / "bin" / "beamlabel"
    program.write_text(f'#!/bin/sh\nexec {sys.executable} -m beamlabel "$@"\n')
    program.chmod(0o755)
    (directory / ".venv" / "bin" / "activate").write_text("# as venv writes it\n")
    environment = {
        **os.environ,
        "PATH": f"{program.parent}:{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT),
    }
    printed = []
    for language, block in BLOCKS:
        if "2026-11-24" in block:
            add_photos(directory / "photos", 3, 5)
        command = ["bash", "-ec", block] if language == "bash" else [sys.executable, "-c", block]
        done = subprocess.run(
            command, cwd=directory, env=environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, f"{block}\n{done.stderr}"
        # beamlabel's own lines go to stderr.
        printed.append(done.stdout + (done.stderr if language == "bash" else ""))
    return directory, printed


def uris(directory: Path) -> list[str]:
    names = ds.dataset(directory, format="parquet").to_table(columns=["uri"]).column("uri").to_pylist()
    return sorted(name.rpartition("/")[2] for name in names)


def test_the_steps(place):
    directory, printed = place
    assert uris(directory / "out" / "photos") == ["0.png", "1.png", "2.png"]
    assert (directory / "out" / "photos" / "_report.html").exists()
    table, verified = printed[2], printed[3]
    # pandas shortens long columns, and URIs with them.
    assert all(name in table for name in ("uri", "label", "score")) and len(table.splitlines()) == 4
    assert "consistent" in verified


def test_the_second_night_labels_the_new_photographs(place):
    directory, _ = place
    assert uris(directory / "labels" / "dt=2026-11-23") == ["0.png", "1.png", "2.png"]
    assert uris(directory / "labels" / "dt=2026-11-24") == ["3.png", "4.png"]


def test_own_classes_label_all(place):
    directory, _ = place
    table = ds.dataset(directory / "out" / "mine", format="parquet").to_table(columns=["label"])
    assert table.num_rows == 5
    assert set(table.column("label").to_pylist()) <= {"whole", "dented"}


def test_the_pipeline_prints_a_label_and_a_reason(place):
    _, printed = place
    lines = printed[-1].splitlines()
    assert any(line.startswith("photos/0.png ") for line in lines)
    assert "photos/missing.png not_found" in lines
