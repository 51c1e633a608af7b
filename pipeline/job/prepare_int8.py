"""``--precision int8``: a module in float32 and a sample of the input → the artifact in int8."""

from __future__ import annotations

import importlib.util
import logging
from dataclasses import dataclass

import numpy as np

from beamlabel.pipeline.errors import UsageError
from beamlabel.pipeline.job.preflight import Inputs
from beamlabel.pipeline.job.sample_images import FIRST_REFERENCES, sample_images
from beamlabel.pipeline.job.settings import derived_options, load_options, source_options
from beamlabel.pipeline.options.job_options import INT8, INT8_OR_FLOAT32, JobOptions
from beamlabel.transforms import storage
from beamlabel.transforms.inference.artifact import Artifact, ModuleError
from beamlabel.transforms.quantize.search import Found, search
from beamlabel.transforms.storage.host_cache import cache_dir

# Images that the quantized module is compared on, beside those that it was calibrated with.
LEAST_TEST_IMAGES, MOST_TEST_IMAGES = 100, 600

_LOGGER = logging.getLogger("beamlabel")


@dataclass(frozen=True)
class Sample:
    """Images of the input, uint8[height, width, 3] each.

    Attributes:
      calibration: to quantize with.
      test: others, to compare on.
    """

    calibration: list[np.ndarray]
    test: list[np.ndarray]


def check_installed() -> None:
    """Refuses int8 on a launcher without NNCF.

    Raises:
      UsageError: it is not installed, or OpenVINO is not.
    """
    if any(importlib.util.find_spec(name) is None for name in ("nncf", "openvino")):
        raise UsageError("--precision int8 needs OpenVINO and NNCF: pip install 'beamlabel[int8]'")


def prepare_int8(options: JobOptions, inputs: Inputs, artifact: Artifact) -> Artifact:
    """The module in int8; in float32 if int8 does not serve and ``--precision int8,float32`` allows that.

    Args:
      options, inputs: the job's.
      artifact: the module in float32.

    Raises:
      UsageError: the input has too few images, or no setting passes.
    """
    try:
        found = quantize(artifact, sample(options, inputs, artifact), scores_of(options, artifact))
        if found.artifact is not None and found.chosen is not None:
            _LOGGER.info("--precision int8: %s", found.trials[found.chosen].text())
            return found.artifact
        raise UsageError(
            f"--precision {INT8}: no setting passes for this module and these images. Label in float32, or with "
            f"--precision {INT8_OR_FLOAT32}, which does so by itself. What was tried:\n{found.table()}"
        )
    except UsageError as error:
        if options.inference.precision != INT8_OR_FLOAT32:
            raise
        _LOGGER.warning("%s\nIt is computed in float32.", error)
        return artifact


def scores_of(options: JobOptions, artifact: Artifact) -> str:
    """What makes scores of the module's logits, as the job does; see ``top_k.scores_of``."""
    return derived_options(options, artifact).predict.scores


def quantize(artifact: Artifact, sample: Sample, scores: str) -> Found:
    """See ``search``.

    Raises:
      UsageError: the module cannot be quantized.
    """
    try:
        return search(artifact, sample.calibration, sample.test, scores, cache_dir())
    except (ModuleError, RuntimeError) as error:
        raise UsageError(f"--precision {INT8}: {error}") from error


def sample(options: JobOptions, inputs: Inputs, artifact: Artifact) -> Sample:
    """Reads and decodes images of the input as the job does.

    Raises:
      UsageError: they cannot be read, or are too few.
    """
    derived = derived_options(options, artifact)
    try:
        source = source_options(options.inputs, inputs, None, options.loading)
        load = load_options(options.loading, derived.decode)
    except (OSError, ValueError) as error:
        raise UsageError(str(error)) from error
    calibration = options.inference.calibration_images
    images = sample_images(inputs, source, load, calibration + MOST_TEST_IMAGES)
    if len(images) < calibration + LEAST_TEST_IMAGES:
        names = ", ".join(storage.absolute(pattern) for pattern in options.inputs.input)
        raise UsageError(
            f"--precision {INT8} takes {calibration} different images of the input to calibrate with, and at least "
            f"{LEAST_TEST_IMAGES} others to compare on: {len(images)} of {names} can be loaded, of the first "
            f"{FIRST_REFERENCES} references. Give more images, set --calibration_images to fewer, or label in float32"
        )
    return Sample(images[:calibration], images[calibration:])
