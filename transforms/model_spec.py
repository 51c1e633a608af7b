"""What the launcher decides about a model and every worker has to know, and the one file it travels in.

An artifact is one self-contained file, written by ``compile.py`` and opened by ``engines.py``::

    b"BEAMLABEL-MODEL\n"   16 bytes, the magic
    uint64                 length of the spec, little endian
    spec                   a ``ModelSpec`` as JSON, UTF-8
    payload                what the engine named in the spec reads; for "litert" and "openvino" a
                           LiteRT FlatBuffer, for "tensorflow" a GraphDef
    sha256                 32 bytes over everything before it, so that a damaged file shows by itself

Nothing here imports TensorFlow.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import mmap
import struct
from dataclasses import dataclass

_MAGIC = b"BEAMLABEL-MODEL\n"
_LENGTH = struct.Struct("<Q")
_DIGEST_BYTES = hashlib.sha256().digest_size

LITERT, OPENVINO, TENSORFLOW = "litert", "openvino", "tensorflow"
FLOAT32, BFLOAT16 = "float32", "bfloat16"
PRECISIONS = (FLOAT32, BFLOAT16)

# Names of the input and the outputs in every payload.
PIXELS, LOGITS, FEATURES = "pixels", "logits", "features"

INPUT_RANGES = ((0.0, 1.0), (-1.0, 1.0), (0.0, 255.0))


class ModuleError(ValueError):
    """The module cannot be found, read or used; the message says what was found and what to do."""


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
      kind: the module's format, as ``hub_module`` recognised it.
      input_range: what pixels 0 and 255 become, inside the compiled function.
      looks_like_probabilities: whether the logits of a probe batch lie within [0, 1] and sum to 1.
      input_tensor, logits_tensor, features_tensor: names in the payload's graph.
      fallback: why the engine that the launcher prefers was not to be had; None where it was.
      precision: what it is meant to compute in, ``float32`` or ``bfloat16``; what a worker's engine really
        computes in is said by ``engines.Engine``.
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
    looks_like_probabilities: bool
    input_tensor: str
    logits_tensor: str | None
    features_tensor: str | None
    fallback: str | None = None
    precision: str = FLOAT32

    def to_json(self) -> str:
        """Canonical JSON: equal specs give equal text."""
        return json.dumps(dataclasses.asdict(self), sort_keys=True, separators=(",", ":"))

    @classmethod
    def from_json(cls, text: str | bytes) -> ModelSpec:
        """The inverse of ``to_json``."""
        value = json.loads(text)
        low, high = value["input_range"]
        return cls(**{**value, "input_range": (low, high)})


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
    header = spec.to_json().encode()
    body = b"".join((_MAGIC, _LENGTH.pack(len(header)), header, payload))
    return body + hashlib.sha256(body).digest()


def unpack(data: bytes | mmap.mmap) -> tuple[ModelSpec, memoryview]:
    """The spec and the payload of an artifact; the payload is a view, not a copy.

    Raises:
      ModuleError: the bytes are not an artifact, or not the whole of one.
    """
    start = len(_MAGIC) + _LENGTH.size
    view = memoryview(data)
    if view[: len(_MAGIC)] != _MAGIC or len(view) < start + _DIGEST_BYTES:
        raise ModuleError(f"not a compiled model: {len(view)} bytes that begin with {bytes(view[:16])!r}")
    body = view[:-_DIGEST_BYTES]
    if hashlib.sha256(body).digest() != view[-_DIGEST_BYTES:]:
        raise ModuleError("the compiled model is damaged: its checksum does not match")
    (length,) = _LENGTH.unpack_from(view, len(_MAGIC))
    return ModelSpec.from_json(bytes(body[start : start + length])), body[start + length :]
