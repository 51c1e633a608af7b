"""Runs the labeling job in this process, like the command, and reads its output."""

import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.dataset as ds
from PIL import Image

from beamlabel.pipeline.commands.relabel import parse as parse_relabel
from beamlabel.pipeline.errors import UsageError
from beamlabel.pipeline.job.label_job import LabelJob
from beamlabel.pipeline.job.preflight import check_inputs
from beamlabel.pipeline.job.stage import prepare
from beamlabel.pipeline.options.parser import parse, usage
from beamlabel.pipeline.run import run
from support.paths import DATA

TINY = str(DATA / "tiny_classification_1.tar.gz")
TINY_FEATURES = str(DATA / "tiny_feature_vector_1.tar.gz")


@dataclass(frozen=True)
class FinishedJob:
    """A finished job: its exit code and its output directory."""

    code: int
    output: Path

    @property
    def manifest(self) -> dict:
        return json.loads((self.output / "_MANIFEST.json").read_text())

    @property
    def table(self) -> pa.Table:
        """The output as one table in the order of the input."""
        return ds.dataset(self.output, format="parquet").to_table()

    @property
    def rows(self) -> list[dict]:
        return self.table.to_pylist()

    @property
    def failures(self) -> list[dict]:
        files = sorted((self.output / "_failures").glob("part-*.jsonl"))
        return [json.loads(line) for file in files for line in file.read_text().splitlines()]

    @property
    def succeeded(self) -> bool:
        return (self.output / "_SUCCESS").exists()


def command(*arguments, **options) -> "subprocess.CompletedProcess[str]":
    """Runs ``beamlabel`` with these arguments in a separate process."""
    argv = [sys.executable, "-m", "beamlabel", *map(str, arguments)]
    return subprocess.run(argv, capture_output=True, text=True, check=False, **options)


def label(output, *arguments, module=TINY) -> FinishedJob:
    """Runs the job; a usage error gives exit code 2, as with the command."""
    argv = ["--module", str(module), "--output", str(output), *map(str, arguments)]
    try:
        code = run(*parse(argv))
    except UsageError as error:
        usage(error)
        code = 2
    return FinishedJob(code, Path(output))


def relabel(output, *arguments, module) -> FinishedJob:
    """Runs ``relabel`` in the way that ``label`` runs the job."""
    argv = [*map(str, arguments), "--module", str(module), "--output", str(output)]
    try:
        code = run(*parse_relabel(argv))
    except UsageError as error:
        usage(error)
        code = 2
    return FinishedJob(code, Path(output))


def prepared(*arguments) -> LabelJob:
    """A planned and staged job that has not run."""
    options, _ = parse([*map(str, arguments)])
    return prepare(options, check_inputs(options.inputs, options.output))


def photos(directory: Path, count: int, *, size=(48, 40)) -> list[Path]:
    """Small, different PNGs: smooth gradients with noise, so that a module's answers differ."""
    directory.mkdir(parents=True, exist_ok=True)
    paths = []
    for number in range(count):
        rng = np.random.default_rng(number)
        corners = rng.uniform(0, 255, (2, 2, 3)).astype(np.uint8)
        smooth = np.asarray(Image.fromarray(corners).resize(size, Image.Resampling.BILINEAR), np.int16)
        noisy = np.clip(smooth + rng.integers(-20, 20, smooth.shape), 0, 255).astype(np.uint8)
        paths.append(directory / f"photo {number:03d}.png")
        Image.fromarray(noisy).save(paths[-1])
    return paths


def uri_list(path: Path, uris) -> Path:
    path.write_text("".join(f"{uri}\n" for uri in uris))
    return path


def read_examples(directory: Path, compression: str = "none") -> list[dict[str, list]]:
    """The examples of an output as TensorFlow reads them."""
    import tensorflow as tf

    ending = ".gz" if compression == "gzip" else ""
    files = sorted(str(path) for path in directory.glob(f"part-*.tfrecord{ending}"))
    rows = []
    for record in tf.data.TFRecordDataset(files, compression.upper() if ending else ""):
        example = tf.train.Example.FromString(record.numpy())
        row = {}
        for name, feature in example.features.feature.items():
            kind = feature.WhichOneof("kind")
            row[name] = list(getattr(feature, kind).value) if kind else []
        rows.append(row)
    return rows
