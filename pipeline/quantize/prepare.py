"""``--precision int8``: turns a float32 module and a sample of the input into an int8 artifact."""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass

import numpy as np

from beamlabel.pipeline.errors import UsageError
from beamlabel.pipeline.quantize.sample_images import FIRST_REFERENCES, InputImages, sample_images
from beamlabel.transforms.extras.install import install_extra
from beamlabel.transforms.inference.artifact import Artifact, ModuleError
from beamlabel.transforms.quantize.search import Found, search
from beamlabel.transforms.secrets.logs import get_logger
from beamlabel.transforms.storage.host_cache import cache_dir

# Images for comparing the quantized module; none of them is used for calibration.
LEAST_TEST_IMAGES, MOST_TEST_IMAGES = 100, 600

_LOGGER = get_logger("beamlabel")


@dataclass(frozen=True)
class Sample:
    """Images of the input, uint8[height, width, 3] each.

    Attributes:
      calibration: images for quantization.
      test: other images, for comparison.
    """

    calibration: list[np.ndarray]
    test: list[np.ndarray]


def check_nncf() -> None:
    """Refuses int8 on a launcher without NNCF.

    Raises:
      UsageError: NNCF or OpenVINO is not installed.
    """
    if any(importlib.util.find_spec(name) is None for name in ("nncf", "openvino")):
        raise UsageError(f"--precision int8 needs OpenVINO and NNCF: {install_extra('int8')}")


def prepare_int8(
    artifact: Artifact, images: InputImages, *, calibration_images: int, scores: str, or_float32: bool
) -> Artifact:
    """The module in int8, or in float32 if int8 is unsuitable and ``or_float32`` is set.

    Args:
      artifact: the module in float32.
      images: images of the job's input.
      calibration_images: number of images for calibration.
      scores: function from logits to scores, see ``top_k.scores_of``.
      or_float32: whether float32 is acceptable.

    Raises:
      UsageError: the input has too few images, or no setting passes.
    """
    try:
        found = quantize(artifact, take_sample(images, calibration_images), scores)
        if found.artifact is not None and found.chosen is not None:
            _LOGGER.info("--precision int8: %s", found.trials[found.chosen].text())
            return found.artifact
        raise UsageError(
            "--precision int8: no setting passes for this module and these images. Use float32, or "
            f"--precision int8,float32 to fall back to it automatically. Settings tried:\n{found.table()}"
        )
    except UsageError as error:
        if not or_float32:
            raise
        _LOGGER.warning("%s\nComputing in float32.", error)
        return artifact


def quantize(artifact: Artifact, sample: Sample, scores: str) -> Found:
    """Quantizes the artifact; see ``search``.

    Raises:
      UsageError: the module cannot be quantized.
    """
    try:
        return search(artifact, sample.calibration, sample.test, scores, cache_dir())
    except (ModuleError, RuntimeError) as error:
        raise UsageError(f"--precision int8: {error}") from error


def take_sample(images: InputImages, calibration: int) -> Sample:
    """Reads and decodes images of the input as in the job.

    Args:
      images: the input.
      calibration: number of images for quantization.

    Raises:
      UsageError: the images cannot be read, or are too few.
    """
    found = sample_images(images, calibration + MOST_TEST_IMAGES)
    if len(found) < calibration + LEAST_TEST_IMAGES:
        raise UsageError(
            f"--precision int8 needs {calibration} different images of --input for calibration, and at least "
            f"{LEAST_TEST_IMAGES} others for comparison: {len(found)} of the first {FIRST_REFERENCES} references can "
            "be loaded. Give more images, lower --calibration_images, or label in float32"
        )
    return Sample(found[:calibration], found[calibration:])
