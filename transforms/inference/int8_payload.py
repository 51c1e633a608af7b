"""The payload of an int8 artifact: OpenVINO's model, and its answers to the probe batch on the launcher.

A ZIP file without compression; equal models give equal bytes::

    model.xml, model.bin       OpenVINO's intermediate representation, of version 11
    logits.npy, features.npy   float32[4, D] each, if the model has them: its answers to ``probe.probe_batch``

See https://docs.openvino.ai/2025/documentation/openvino-ir-format.html.
"""

from __future__ import annotations

import io
import zipfile
from dataclasses import dataclass

import numpy as np

from beamlabel.transforms.inference.artifact import FEATURES, LOGITS, ModuleError
from beamlabel.transforms.inference.engines import Outputs

_XML, _WEIGHTS = "model.xml", "model.bin"
# The earliest date that a ZIP file can store.
_DATE = (1980, 1, 1, 0, 0, 0)


@dataclass(frozen=True)
class Int8Model:
    """A quantized model in OpenVINO's own format.

    Attributes:
      xml, weights: contents of the two files.
    """

    xml: bytes
    weights: bytes


def pack_int8(model: Int8Model, answers: Outputs) -> bytes:
    """The bytes of a payload; for ``answers`` see above."""
    files = {_XML: model.xml, _WEIGHTS: model.weights}
    for name, values in zip((LOGITS, FEATURES), answers, strict=True):
        if values is not None:
            buffer = io.BytesIO()
            np.save(buffer, values, allow_pickle=False)
            files[f"{name}.npy"] = buffer.getvalue()
    whole = io.BytesIO()
    with zipfile.ZipFile(whole, "w", zipfile.ZIP_STORED) as archive:
        for name, content in files.items():
            archive.writestr(zipfile.ZipInfo(name, _DATE), content)
    return whole.getvalue()


def unpack_int8(payload: bytes | memoryview) -> tuple[Int8Model, Outputs]:
    """The inverse of ``pack_int8``.

    Raises:
      ModuleError: the bytes are not an int8 payload.
    """
    try:
        with zipfile.ZipFile(io.BytesIO(payload)) as archive:
            files = {name: archive.read(name) for name in archive.namelist()}
        model = Int8Model(files[_XML], files[_WEIGHTS])
    except (zipfile.BadZipFile, KeyError) as error:
        raise ModuleError(f"the compiled model is not a valid int8 model: {error}") from error

    def values(name: str) -> np.ndarray | None:
        content = files.get(f"{name}.npy")
        if content is None:
            return None
        found: np.ndarray = np.load(io.BytesIO(content), allow_pickle=False)
        return found

    return model, (values(LOGITS), values(FEATURES))
