"""The sample: eight real photographs from the wheels of scikit-image, matplotlib and scikit-learn.

::

    python -m beamlabel.pipeline.demo.sample LIST            write their paths into LIST, one per line
    python -m beamlabel.pipeline.demo.sample --show OUTPUT   print their labels from a run
    python -m beamlabel.pipeline.demo.sample --check OUTPUT  exit with 1 if a label is not an expected one

The packages are located but never imported: importing scikit-learn alone takes seconds, and scikit-image would
download missing files.
"""

from __future__ import annotations

import argparse
import importlib.util
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple, TextIO

from beamlabel.pipeline.demo.module import DemoUnavailableError
from beamlabel.transforms.secrets.say import say

# Source of each photograph: the distribution to install, the package to import, the file in it.
_SOURCES = (
    ("scikit-image", "skimage", "data/camera.png"),
    ("scikit-image", "skimage", "data/chelsea.png"),
    ("scikit-learn", "sklearn", "datasets/images/china.jpg"),
    ("scikit-image", "skimage", "data/coffee.png"),
    ("scikit-learn", "sklearn", "datasets/images/flower.jpg"),
    ("matplotlib", "matplotlib", "mpl-data/sample_data/grace_hopper.jpg"),
    ("scikit-image", "skimage", "data/motorcycle_left.png"),
    ("scikit-image", "skimage", "data/rocket.jpg"),
)

# Expected labels of the demo module, by file stem.
EXPECTED_LABELS = {
    "camera": {"tripod"},
    "chelsea": {"Egyptian cat", "tabby", "tiger cat"},
    "coffee": {"espresso"},
    "grace_hopper": {"military uniform"},
    "motorcycle_left": {"moped", "motor scooter"},
    # Chinese temple, dahlia, rocket in its launch tower: ImageNet has only similar classes for them.
    "china": {"bell cote", "stupa", "monastery", "palace"},
    "flower": {"daisy", "bee"},
    "rocket": {"drilling platform", "missile", "projectile", "space shuttle"},
}


class Labeled(NamedTuple):
    """A photograph's file stem, its best class and the score of that class."""

    photo: str
    label: str
    score: float


def sample_photos() -> list[Path]:
    """The absolute paths of the photographs, sorted by file stem.

    Raises:
      DemoUnavailableError: a package of the extra ``demo`` is missing, or lacks its photographs.
    """
    return [_locate(*source) for source in _SOURCES]


def _locate(distribution: str, package: str, file: str) -> Path:
    spec = importlib.util.find_spec(package)
    for directory in (spec and spec.submodule_search_locations) or ():
        path = Path(directory).absolute() / file
        if path.is_file():
            return path
    raise DemoUnavailableError(distribution)


def write_sample_list(path: Path) -> None:
    """Writes the photographs' paths into ``path``, one per line."""
    path.write_text("".join(f"{photo}\n" for photo in sample_photos()), encoding="utf-8")


def read_labels(output: Path) -> list[Labeled]:
    """The labels in a run's Parquet output, sorted by photograph."""
    import pyarrow.dataset

    rows = pyarrow.dataset.dataset(output, format="parquet").to_table(["uri", "label", "score"]).to_pylist()
    return sorted(Labeled(Path(row["uri"]).stem, row["label"], row["score"]) for row in rows)


def print_labels(output: Path, stream: TextIO) -> None:
    """Writes an aligned table of photograph, label and score to ``stream``."""
    labels = read_labels(output)
    photo_width = max([len("photo"), *(len(row.photo) for row in labels)])
    label_width = max([len("label"), *(len(row.label) for row in labels)])
    say(f"{'photo':<{photo_width}}  {'label':<{label_width}}  score", stream)
    for photo, label, score in labels:
        say(f"{photo:<{photo_width}}  {label:<{label_width}}  {score:.2f}", stream)


def odd_labels(labels: Sequence[Labeled]) -> list[str]:
    """One line for each photograph of the sample whose label is missing or unexpected."""
    found = {row.photo: row.label for row in labels}
    return [
        f"{photo}: {found.get(photo, 'no label')}, expected {' or '.join(sorted(expected))}"
        for photo, expected in EXPECTED_LABELS.items()
        if found.get(photo) not in expected
    ]


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command line; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m beamlabel.pipeline.demo.sample", description="The sample photographs."
    )
    task = parser.add_mutually_exclusive_group(required=True)
    task.add_argument("list", nargs="?", type=Path, metavar="LIST", help="file for their paths")
    task.add_argument("--show", type=Path, metavar="OUTPUT", help="print the labels of a run")
    task.add_argument(
        "--check", type=Path, metavar="OUTPUT", help="compare the labels of a run with expected ones"
    )
    options = parser.parse_args(argv)
    try:
        if options.list:
            write_sample_list(options.list)
        elif options.show:
            print_labels(options.show, sys.stdout)
        elif odd := odd_labels(read_labels(options.check)):
            for line in odd:
                say(line)
            return 1
    except (DemoUnavailableError, OSError) as error:
        say(str(error))
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
