"""The contenders of the comparison, and the command line of each."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

from environments import HERE, OWN

HANDWRITTEN, OURS, STOCK_BEAM = "handwritten", "ours", "beam"


@dataclass(frozen=True)
class Contender:
    """One row of the report.

    Attributes:
      name: its name in ``--only``.
      title: its name in the report.
      script: its file below ``peers``, or None for this project's own command.
      arguments: its arguments in addition to the common ones.
      environment: see ``environments.python_of``.
      needs: see ``environments.check_modules``; for contenders in the environment of the running Python.
    """

    name: str
    title: str
    script: str | None = None
    arguments: tuple[str, ...] = ()
    environment: str = OWN
    needs: tuple[str, ...] = ()


_BEAM_PROCESSES = ("--direct_num_workers=2", "--direct_running_mode=multi_processing")

CONTENDERS = (
    Contender(HANDWRITTEN, "hand-written script, a process a core", "handwritten.py", needs=("litert",)),
    Contender(OURS, "**beamlabel**"),
    Contender(
        "ours_openvino", "beamlabel `--engine openvino`", arguments=("--engine", "openvino"), needs=("openvino",)
    ),
    Contender("ours_tensorflow", "beamlabel `--engine tensorflow`", arguments=("--engine", "tensorflow")),
    Contender(
        "ours_bfloat16",
        "beamlabel `--precision bfloat16`",
        arguments=("--precision", "bfloat16"),
        needs=("openvino",),
    ),
    Contender(STOCK_BEAM, "Beam after its own examples, in memory", "beam_stock.py", needs=("tensorflow",)),
    Contender(
        "beam_processes",
        "the same, multi-processing × 2",
        "beam_stock.py",
        _BEAM_PROCESSES,
        needs=("tensorflow",),
    ),
    Contender("tf_data", "tf.data and TensorFlow, a script", "tf_data.py", needs=("tensorflow",)),
    Contender("daft", "Daft", "daft_udf.py", environment="daft"),
    Contender("ray", "Ray Data", "ray_map.py", environment="ray"),
    Contender("spark", "Spark, `local[2]`", "spark_arrow.py", environment="spark"),
)  # fmt: skip


@dataclass(frozen=True)
class Job:
    """The task of all: label the images of ``images`` with ``module``; ``prepared`` is for the peers."""

    images: Path
    module: Path
    prepared: Path


def command(contender: Contender, python: str, job: Job, output: Path) -> list[str]:
    """Returns the command line that does ``job`` and writes Parquet to ``output``."""
    common = ["--input", str(job.images), "--output", str(output), "--module", str(job.module)]
    if contender.script is None:
        return [sys.executable, "-m", "beamlabel", *common, "--if_exists", "overwrite", *contender.arguments]
    script = str(HERE / "peers" / contender.script)
    return [python, script, *common, "--prepared", str(job.prepared), *contender.arguments]
