"""The launcher's decisions about a model that every worker needs, and the file that carries them.

An artifact is one self-contained file, written by ``compile.py`` and opened by ``engines.py``::

    payload                data for the engine that the spec names; for "litert" and "openvino" a
                           LiteRT FlatBuffer, in int8 see ``int8_payload``, for "tensorflow" a GraphDef,
                           for "linear", which takes features in place of images, the weights of a head
    spec                   a ``ModelSpec`` as JSON, UTF-8
    uint64                 length of the spec, little endian
    b"BEAMLABEL-MODEL2"    16 bytes, the magic, with the format's version
    sha256                 32 bytes over everything before it, to detect damage without other data

The payload comes first, so that LiteRT can map the file directly: it ignores bytes after a FlatBuffer.
Nothing here imports TensorFlow.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import mmap
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

_MAGIC = b"BEAMLABEL-MODEL2"
_LENGTH = struct.Struct("<Q")
_DIGEST_BYTES = hashlib.sha256().digest_size

LITERT, OPENVINO, TENSORFLOW, LINEAR = "litert", "openvino", "tensorflow", "linear"
FLOAT32, BFLOAT16, INT8 = "float32", "bfloat16", "int8"
# The precisions that can be compiled without images; for int8 see ``transforms/quantize``.
PRECISIONS = (FLOAT32, BFLOAT16)

# Names of the input and the outputs in every payload.
PIXELS, LOGITS, FEATURES = "pixels", "logits", "features"

INPUT_RANGES = ((0.0, 1.0), (-1.0, 1.0), (0.0, 255.0))


class ModuleError(ValueError):
    """The module cannot be found, read or used; the message states the problem and the remedy."""


@dataclass(frozen=True)
class Quantization:
    """The choices that determine the numbers of an int8 model; part of ``preprocessing_id`` and ``features_id``.

    Attributes:
      calibration: SHA-256, in hex, over the pixels of the calibration images, in order.
      float32_layers: the layers that still compute in float32: for each its index among the layers with weights, in the
        order of computation, and its kind, such as ``0 Convolution``.
      model: SHA-256, in hex, of the quantized model. Two machines may quantize the same module with the same images to
        models that differ in a last digit, or choose other settings; then their rows do not count as the same.
    """

    calibration: str
    float32_layers: tuple[str, ...]
    model: str

    @classmethod
    def from_dict(cls, value: Mapping[str, Any]) -> Quantization:
        """The inverse of ``dataclasses.asdict``, also after a round trip through JSON."""
        return cls(value["calibration"], tuple(value["float32_layers"]), value["model"])


@dataclass(frozen=True)
class ModelSpec:
    """The description of a compiled model for workers.

    Attributes:
      engine: the engine that opens the payload.
      height, width: size of the input in pixels, uint8[N, height, width, 3], RGB.
      num_classes: columns of the logits; None if the model has none.
      embedding_dim: columns of the features; None if the model has none.
      fingerprint: SHA-256 over the module's files (``resolve_module.fingerprint``).
      handle: the user's name for the module.
      kind: the module's format, as detected by ``load`` in ``transforms/module``.
      input_range: the values for pixels 0 and 255, inside the compiled function.
      score_kind: the kind of the logits, such as ``probabilities``, see ``module.score_kind``; None without logits.
      scores: the score function that fits them, ``softmax``, ``sigmoid`` or ``none``; None if that is unclear, or
        without logits.
      scores_reason: the reason, as text.
      input_tensor, logits_tensor, features_tensor: names in the payload's graph.
      fallback: the reason why the launcher's preferred engine cannot be used; None if it is used.
      precision: the intended precision, ``float32``, ``bfloat16`` or ``int8``; ``engines.Engine`` states a worker's
        real precision.
      features_of: identifies the network output that the features are: the fingerprint of its module, a colon, and its
        name there. For an own module it is that of its base, so that both have the same features. Empty if there are no
        features.
      class_names: class names of an own module, in the order of the logits; None for other modules.
      crop, color_profile: how the training images of an own module's head were decoded, see ``DecodeOptions``; None for
        other modules. A ``crop`` of None also means stretched images.
      quantization: in int8, the choices that determine the numbers besides the module; None in other precisions.
      allows_unsafe_ops: whether the user allows any operation in the module, see ``allowed_ops``. Otherwise the engine
        "tensorflow" refuses a graph with an operation that is not allowed.
    """

    engine: str
    height: int
    width: int
    num_classes: int | None
    embedding_dim: int | None
    fingerprint: str
    handle: str
    kind: str
    input_range: tuple[float, float]
    score_kind: str | None
    scores: str | None
    scores_reason: str
    input_tensor: str
    logits_tensor: str | None
    features_tensor: str | None
    fallback: str | None = None
    precision: str = FLOAT32
    batch: int | None = None
    channels_first: bool = False
    features_of: str = ""
    class_names: tuple[str, ...] | None = None
    crop: float | None = None
    color_profile: str | None = None
    quantization: Quantization | None = None
    allows_unsafe_ops: bool = False

    def chunk_size(self, preferred: int) -> int:
        """The number of images that an engine runs at a time, given its preferred number."""
        return preferred if self.batch is None else self.batch

    def notes(self) -> tuple[str, ...]:
        """Describes how images are changed to suit the module."""
        found = []
        if self.batch is not None:
            found.append(f"takes {self.batch} images at a time: batches are cut and padded")
        if self.channels_first:
            found.append("takes channel-first images (NCHW): they are transposed")
        return tuple(found)

    def to_json(self) -> str:
        """Canonical JSON: equal specs give equal text."""
        return json.dumps(dataclasses.asdict(self), sort_keys=True, separators=(",", ":"))

    @classmethod
    def from_json(cls, text: str | bytes) -> ModelSpec:
        """The inverse of ``to_json``.

        Raises:
          ModuleError: another version of beamlabel wrote it.
        """
        value = json.loads(text)
        if set(value) != {field.name for field in dataclasses.fields(cls)}:
            raise ModuleError("the compiled model was written by another version of beamlabel")
        low, high = value["input_range"]
        class_names = value["class_names"]
        names = None if class_names is None else tuple(class_names)
        quantization = value["quantization"]
        if quantization is not None:
            quantization = Quantization.from_dict(quantization)
        others = {"input_range": (low, high), "class_names": names, "quantization": quantization}
        return cls(**{**value, **others})


@dataclass(frozen=True)
class Artifact:
    """A compiled model in a file.

    Attributes:
      path: the file, local or remote.
      sha256: SHA-256 of the whole file, in hex; a worker refuses other bytes.
      spec: the spec in the file.
    """

    path: str
    sha256: str
    spec: ModelSpec


def pack(spec: ModelSpec, payload: bytes) -> bytes:
    """The bytes of an artifact."""
    text = spec.to_json().encode()
    body = b"".join((payload, text, _LENGTH.pack(len(text)), _MAGIC))
    return body + hashlib.sha256(body).digest()


def unpack(data: bytes | mmap.mmap) -> tuple[ModelSpec, memoryview]:
    """The spec and the payload of an artifact; the payload is a view, not a copy.

    Raises:
      ModuleError: the bytes are not a complete artifact.
    """
    view = memoryview(data)
    body, digest = view[:-_DIGEST_BYTES], view[-_DIGEST_BYTES:]
    before, magic = body[: -len(_MAGIC)], body[-len(_MAGIC) :]
    if magic != _MAGIC or len(before) < _LENGTH.size:
        raise ModuleError(f"not a complete compiled model of this version: {len(view)} bytes")
    if hashlib.sha256(body).digest() != digest:
        raise ModuleError("the compiled model is damaged: its checksum does not match")
    content, (length,) = before[: -_LENGTH.size], _LENGTH.unpack(before[-_LENGTH.size :])
    split = len(content) - length
    return ModelSpec.from_json(bytes(content[split:])), content[:split]
