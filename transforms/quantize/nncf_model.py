"""Quantizes a LiteRT FlatBuffer with images and NNCF to OpenVINO's model in int8."""

from __future__ import annotations

import contextlib
import io
import logging
import os
import tempfile
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from beamlabel.transforms.extras.install import install_extra
from beamlabel.transforms.inference.artifact import ModelSpec, ModuleError
from beamlabel.transforms.inference.int8_payload import Int8Model
from beamlabel.transforms.quantize.agreement import LEAST_COSINE
from beamlabel.transforms.quantize.layers import layers
from beamlabel.transforms.quantize.settings import MIXED, Setting
from beamlabel.transforms.quantize.weights import channel_means, original_weights, widen

# NNCF's accuracy control: number of images to rank layers by, and maximum number of layers returned to float32.
_RANKED_IMAGES, _MOST_GIVEN_BACK = 64, 20


class Quantizer:
    """Quantizes one module with one set of images, at any setting.

    Args:
      spec, payload: the module in float32, for LiteRT.
      images: calibration images, uint8[height, width, 3] each.

    Raises:
      ModuleError: NNCF or OpenVINO is not installed, or OpenVINO cannot read the module.
    """

    def __init__(self, spec: ModelSpec, payload: bytes | memoryview, images: Sequence[np.ndarray]) -> None:
        self._spec, self._images = spec, images
        self._nncf, self._openvino = _imported()
        with tempfile.TemporaryDirectory(prefix="beamlabel-") as directory:
            path = Path(directory) / "model.tflite"
            path.write_bytes(payload)
            self._model = self._openvino.Core().read_model(path)
        self._model.reshape([1, spec.height, spec.width, 3])
        self._originals = original_weights(self._model)
        self._means = channel_means(self._model, images)

    def quantized(self, setting: Setting) -> tuple[Int8Model, tuple[str, ...]]:
        """Returns the model, and the layers that stay in float32.

        Raises:
          ModuleError: NNCF cannot quantize the module with this setting, or quantizes no layer.
        """
        try:
            with _quiet():
                model = self._controlled() if setting.accuracy_control else self._calibrated(setting)
        except Exception as error:
            # NNCF raises many exceptions, and the user can do the same about all of them.
            reason = (str(error).strip().splitlines() or [""])[-1]
            raise ModuleError(f"NNCF cannot quantize it ({type(error).__name__}: {reason})") from error
        widen(model, self._originals, self._means)
        found = layers(model)
        if not any(one.is_int8 for one in found):
            raise ModuleError("NNCF quantizes none of its layers")
        return _serialized(self._openvino, model), tuple(one.name for one in found if not one.is_int8)

    def _calibrated(self, setting: Setting) -> Any:
        nncf = self._nncf
        names = list(self._originals)
        kept = names[: setting.first] + names[len(names) - setting.last :]
        return nncf.quantize(
            self._model.clone(),
            nncf.Dataset([image[None] for image in self._images]),
            preset=_preset(nncf, setting.preset),
            subset_size=len(self._images),
            ignored_scope=nncf.IgnoredScope(names=kept) if kept else None,
            advanced_parameters=self._advanced(),
        )

    def _controlled(self) -> Any:
        """Lets NNCF return layers to float32 until its model passes the cosine limit on the calibration images."""
        from nncf.quantization.advanced_parameters import AdvancedAccuracyRestorerParameters

        nncf = self._nncf
        inputs = [image[None] for image in self._images]
        output = self._spec.features_tensor or self._spec.logits_tensor
        original = self._openvino.Core().compile_model(
            self._model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"}
        )
        expected = [np.array(original(one)[output]).ravel() for one in inputs]

        def validated(compiled: Any, items: Any) -> tuple[float, list[float]]:
            found = []
            for place, item in items:
                answer = np.asarray(compiled(item)[output]).ravel()
                found.append(_cosine(expected[place], answer))
            return float(np.median(found)), found

        return nncf.quantize_with_accuracy_control(
            self._model.clone(),
            calibration_dataset=nncf.Dataset(inputs),
            validation_dataset=nncf.Dataset(list(enumerate(inputs)), lambda item: item[1]),
            validation_fn=validated,
            max_drop=1 - LEAST_COSINE,
            drop_type=nncf.DropType.ABSOLUTE,
            preset=_preset(nncf, MIXED),
            subset_size=len(inputs),
            advanced_quantization_parameters=self._advanced(),
            advanced_accuracy_restorer_parameters=AdvancedAccuracyRestorerParameters(
                max_num_iterations=_MOST_GIVEN_BACK, ranking_subset_size=min(_RANKED_IMAGES, len(inputs))
            ),
        )

    def _advanced(self) -> Any:
        from nncf.quantization.advanced_parameters import AdvancedQuantizationParameters, OverflowFix

        # ``weights`` corrects the biases for the final weights, so NNCF need not.
        return AdvancedQuantizationParameters(overflow_fix=OverflowFix.ENABLE, disable_bias_correction=True)


def versions() -> dict[str, str]:
    """The versions of the quantization libraries."""
    nncf, openvino = _imported()
    return {"nncf": nncf.__version__, "openvino": openvino.__version__}


def _imported() -> tuple[Any, Any]:
    # NNCF reports each use to its maker unless it detects CI, which it checks at import.
    before = os.environ.get("NNCF_CI")
    os.environ["NNCF_CI"] = "1"
    try:
        import nncf
        import openvino
    except ImportError as error:
        raise ModuleError(f"NNCF cannot be imported ({error}): {install_extra('int8')}") from error
    finally:
        if before is None:
            del os.environ["NNCF_CI"]
        else:
            os.environ["NNCF_CI"] = before
    return nncf, openvino


def _preset(nncf: Any, name: str) -> Any:
    return nncf.QuantizationPreset.MIXED if name == MIXED else nncf.QuantizationPreset.PERFORMANCE


def _cosine(one: np.ndarray, other: np.ndarray) -> float:
    lengths = float(np.linalg.norm(one) * np.linalg.norm(other))
    return float(one @ other) / lengths if lengths else float(np.array_equal(one, other))


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Silences NNCF, which writes progress bars to stdout, where the command's output goes, and a useless log."""
    logger = logging.getLogger("nncf")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            yield
    finally:
        logger.setLevel(level)


def _serialized(openvino: Any, model: Any) -> Int8Model:
    """The model's files, made reproducible: OpenVINO numbers nodes across all models of a process."""
    for number, node in enumerate(model.get_ordered_ops()):
        if node.get_type_name() not in ("Parameter", "Result"):
            node.set_friendly_name(f"{node.get_type_name()}_{number}")
    with tempfile.TemporaryDirectory(prefix="beamlabel-") as directory:
        xml, weights = Path(directory) / "model.xml", Path(directory) / "model.bin"
        openvino.serialize(model, xml, weights)
        root = ElementTree.fromstring(xml.read_bytes())
        root.set("name", "model")
        # NNCF's settings, under names that change each time.
        for told in root.findall("rt_info"):
            root.remove(told)
        for told in root.iter("rt_info"):
            for names in told.findall("attribute[@name='fused_names']"):
                told.remove(names)
        for number, result in enumerate(root.findall("layers/layer[@type='Result']")):
            result.set("name", f"Result_{number}")
        return Int8Model(ElementTree.tostring(root, encoding="utf-8"), weights.read_bytes())
