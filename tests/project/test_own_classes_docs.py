"""``docs/own_classes.md`` is correct: its commands run in order on generated images and a small module."""

import csv
import json
import os
import re
import subprocess
import sys

import numpy as np
import pyarrow.dataset as ds
import pytest
from PIL import Image

from beamlabel.pipeline.report.data import data_of_page
from beamlabel.transforms.storage.identity import image_id
from support.jobs import TINY
from support.paths import ROOT

pytest.importorskip("tensorflow")

PAGE = (ROOT / "docs" / "own_classes.md").read_text()
COMMANDS = [
    line
    for block in re.findall(r"```bash\n(.*?)```", PAGE, re.DOTALL)
    for line in block.splitlines()
    if not line.startswith("MODULE=")
]
CLASSES = re.findall(r"^  (\w+)/", PAGE, re.MULTILINE)
EACH = 16


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """The page's directory of photographs, and the corrections that a user would save from its reports."""
    directory = tmp_path_factory.mktemp("page")
    for number, name in enumerate(CLASSES):
        (directory / "photos" / name).mkdir(parents=True)
        for image in range(EACH):
            pixels = np.random.default_rng([number, image]).normal(90, 40, (32, 32, 3))
            pixels[..., number] += 80
            Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(
                directory / "photos" / name / f"{image}.png"
            )
    first = str(directory / "photos" / CLASSES[0] / "0.png")
    with (directory / "corrections.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["image_id", "uri", "verdict", "label"])
        writer.writerow([image_id(first), first, "wrong", CLASSES[1]])
    return directory


@pytest.mark.long
def test_the_loop(place):
    """Runs each command with bash in the page's order, then checks the page's statements."""
    assert len(CLASSES) == 3 and len(COMMANDS) == 9
    script = place / "beamlabel"
    script.write_text(f'#!/bin/sh\nexec {sys.executable} -m beamlabel "$@"\n')
    script.chmod(0o755)
    environment = {
        **os.environ,
        "PATH": f"{place}:{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT),
        "MODULE": TINY,
    }
    said = {}
    for line in COMMANDS:
        done = subprocess.run(
            ["bash", "-c", line], cwd=place, env=environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, f"{line}\n{done.stderr}"
        said[line] = done.stdout + done.stderr
    assert all(name in said["beamlabel inspect models/mine"] for name in CLASSES)
    labels, mine = (
        ds.dataset(place / name, format="parquet").to_table() for name in ("labels", "labels-mine")
    )
    assert mine.column("embedding").equals(labels.column("embedding"))
    assert set(mine.column("label").to_pylist()) <= set(CLASSES)
    right = [row["label"] == row["uri"].split("/")[-2] for row in mine.to_pylist()]
    assert np.mean(right) > 0.8, "chance is 0.33"
    (night,) = (place / "nights").iterdir()
    assert json.loads((night / "_MANIFEST.json").read_text())["rows_relabeled"] == len(right)
    assert ds.dataset(night, format="parquet").to_table().column("score").equals(mine.column("score"))
    page = data_of_page((night / "_report.html").read_text())
    assert page and page["sample"] and all(row["thumbnail"] for row in page["sample"])
    for name in ("mine", "mine-2", "tuned"):
        assert {"saved_model.pb", "_TRAINING.json", "_report.html"} <= {
            path.name for path in (place / "models" / name).iterdir()
        }
