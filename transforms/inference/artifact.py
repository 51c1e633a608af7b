"""What the launcher decides about a model and every worker has to know, and the one file it travels in.

An artifact is one self-contained file, written by ``compile.py`` and opened by ``engines.py``::

    payload                what the engine named in the spec reads; for "litert" and "openvino" a
                           LiteRT FlatBuffer, in int8 see ``int8_payload``, for "tensorflow" a GraphDef,
                           for "linear", which takes features in place of images, the weights of a head
    spec                   a ``ModelSpec`` as JSON, UTF-8
    uint64                 length of the spec, little endian
    b"BEAMLABEL-MODEL2"    16 bytes, the magic, with the format's version
    sha256                 32 bytes over everything before it, so that a damaged file shows by itself

The payload comes first, so that LiteRT can map the file as it lies: it ignores what follows a FlatBuffer.
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
# Those that need no images to be compiled for; for int8 see ``transforms/quantize``.
PRECISIONS = (FLOAT32, BFLOAT16)

# Names of the input and the outputs in every payload.
PIXELS, LOGITS, FEATURES = "pixels", "logits", "features"

INPUT_RANGES = ((0.0, 1.0), (-1.0, 1.0), (0.0, 255.0))


class ModuleError(ValueError):
    """The module cannot be found, read or used; the message says what was found and what to do."""


@dataclass(frozen=True)
class Quantization:
    """What decides the numbers of a model in int8; part of ``preprocessing_id`` and ``features_id``.

    Attributes:
      calibration: SHA-256, in hex, over the pixels of the images that it was quantized with, in their order.
      float32_layers: the layers that compute in float32 still: the place of each among the layers with weights, in
        the order of the computation, and its kind, such as ``0 Convolution``.
      model: SHA-256, in hex, of the quantized model. Two machines may quantize the same module with the same images
        to models that differ in a last digit, or choose other settings: then their rows are not taken for the same.
    """

    calibration: str
    float32_layers: tuple[str, ...]
    model: str

    @classmethod
    def from_dict(cls, value: Mapping[str, Any]) -> Quantization:
        """The inverse of ``dataclasses.asdict``, also of what became JSON."""
        return cls(value["calibration"], tuple(value["float32_layers"]), value["model"])


@dataclass(frozen=True)
class ModelSpec:
    """A compiled model, as a worker sees it.

    Attributes:
      engine: which engine opens the payload.
      height, width: pixels of the input, uint8[N, height, width, 3], RGB.
      num_classes: columns of the logits; None where the model gives none.
      embedding_dim: columns of the features; None where the model gives none.
      fingerprint: SHA-256 over the module's files (``resolve_module.fingerprint``).
      handle: what the user named the module.
      kind: the module's format, as ``load`` in ``transforms/module`` recognised it.
      input_range: what pixels 0 and 255 become, inside the compiled function.
      score_kind: what the logits are, such as ``probabilities``, see ``module.score_kind``; None without logits.
      scores: the score function that fits them, ``softmax``, ``sigmoid`` or ``none``; None where that is unclear, or
        without logits.
      scores_reason: why, in words.
      input_tensor, logits_tensor, features_tensor: names in the payload's graph.
      fallback: why the engine that the launcher prefers was not to be had; None where it was.
      precision: what it is meant to compute in, ``float32``, ``bfloat16`` or ``int8``; what a worker's engine really
        computes in is said by ``engines.Engine``.
      features_of: the output of a network that the features are: the fingerprint of the module that has it, a colon,
        and its name there. An own module's is that of its base, so that both have the same features. Empty if there
        are no features.
      class_names: of an own module, in the order of the logits; None of any other.
      crop, color_profile: how the images were decoded that an own module's head was trained on, see ``DecodeOptions``;
        None of any other, and a ``crop`` of None also of images that were stretched.
      quantization: in int8, what decides the numbers beside the module; None in other precisions.
      allows_unsafe_ops: whether the user allowed the module to hold any operation, see ``allowed_ops``. Without it the
        engine "tensorflow" opens no graph that holds another.
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
        """How many images an engine runs at a time, which prefers some number of them."""
        return preferred if self.batch is None else self.batch

    def notes(self) -> tuple[str, ...]:
        """What is done to images so that the module takes them, in words."""
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
            raise ModuleError("the compiled model is of another version of beamlabel")
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
      sha256: of the whole file, in hex; a worker refuses any other bytes.
      spec: the same that the file holds.
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
      ModuleError: the bytes are not an artifact, or not the whole of one.
    """
    view = memoryview(data)
    body, digest = view[:-_DIGEST_BYTES], view[-_DIGEST_BYTES:]
    before, magic = body[: -len(_MAGIC)], body[-len(_MAGIC) :]
    if magic != _MAGIC or len(before) < _LENGTH.size:
        raise ModuleError(f"not a compiled model of this version, or not the whole of one: {len(view)} bytes")
    if hashlib.sha256(body).digest() != digest:
        raise ModuleError("the compiled model is damaged: its checksum does not match")
    content, (length,) = before[: -_LENGTH.size], _LENGTH.unpack(before[-_LENGTH.size :])
    split = len(content) - length
    return ModelSpec.from_json(bytes(content[split:])), content[:split]
