"""The engine "openvino": runs the LiteRT FlatBuffer with OpenVINO in float32 or bfloat16, or an int8 model.

In float32 it takes 0.8 of LiteRT's CPU time on a Xeon (MobileNet V2 0.75, 160 pixels; 0.9 at 1.0, 224).

bfloat16 keeps 8 bits of a number, float32 keeps 24, so results are near the module's but not equal. Before use, an
engine answers the probe batch. In bfloat16 no logit and no feature may differ from LiteRT's by more than a tenth of the
largest, and the best class must be, by the float32 logits, within a twentieth of the largest from the best. In float32
the launcher's limits apply. Measured on the probe batch in bfloat16: logits 0.042, features 0.066 (MobileNet V2 1.0
with trained weights, 224 pixels), 0.026 and 0.037 (0.75 with random weights, 160 pixels); best classes equal.

If the CPU has no instructions that make bfloat16 faster, or the check fails, the engine computes in float32. It logs
that once per process, and ``engines.Engine`` names the engine and precision in use.

In int8 the payload is different, see ``int8_payload``, and the launcher has tested it on the user's images. A worker
may have another CPU or another OpenVINO, so its engine must answer the probe batch like the launcher's, within
bfloat16's limits, or it is refused. It cannot fall back to float32, because its rows would still say int8.
"""

from __future__ import annotations

import tempfile
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from beamlabel.transforms.extras.install import install_extra
from beamlabel.transforms.inference import litert_engine
from beamlabel.transforms.inference.artifact import BFLOAT16, FLOAT32, INT8, OPENVINO, ModelSpec, ModuleError
from beamlabel.transforms.inference.engines import EngineSession, Images, Outputs
from beamlabel.transforms.inference.int8_payload import Int8Model, unpack_int8
from beamlabel.transforms.inference.interpreter_pool import Chunks, fill
from beamlabel.transforms.inference.probe import check_outputs, probe_batch
from beamlabel.transforms.secrets.logs import get_logger
from beamlabel.transforms.worker import cpu
from beamlabel.transforms.worker.compute_pool import compute_pool
from beamlabel.transforms.worker.once import warn_once

# Largest difference, relative to the largest value, and how much worse the best class may be.
TOLERANCE = {BFLOAT16: 0.1, FLOAT32: 1e-3, INT8: 0.1}
TIE = {BFLOAT16: 0.05, FLOAT32: 1e-4, INT8: 0.05}
# Images per second of CPU time in chunks of 4, 8, 16 and 32: 272, 273, 272 and 264 (MobileNet V2 0.75, 160 pixels,
# Xeon without AMX); of 4, 8 and 16: 106, 105 and 103 (1.0, 224 pixels).
CHUNK = 8

_LOGGER = get_logger(__name__)
_lock = threading.Lock()


def open_payload(
    spec: ModelSpec, payload: memoryview, threads: int | None = None, path: Path | None = None
) -> EngineSession:
    """Opens the model in the spec's precision if possible, else in float32; for ``threads`` see ``compute_pool``.

    Raises:
      ModuleError: OpenVINO, or LiteRT, is not installed, or cannot run the model.
    """
    if spec.precision == INT8:
        return _open_int8(spec, payload, threads)
    if spec.precision == FLOAT32:
        return open_checked(spec, payload, FLOAT32, threads)
    if has_units():
        try:
            return open_checked(spec, payload, BFLOAT16, threads)
        except UnequalError as error:
            warn_once(_LOGGER, f"{error}; this process computes in float32.")
    try:
        return open_checked(spec, payload, FLOAT32, threads)
    except ModuleError:
        # OpenVINO is not installed, or not accurate enough in either precision.
        return litert_engine.open_payload(spec, payload, threads, path)


def has_units() -> bool:
    """Whether bfloat16 is worthwhile on this CPU; logs once per process if not.

    OpenVINO's own list of capabilities is not enough: it also names BF16 if AVX-512 only emulates it. And Intel's
    AVX512_BF16 multiplies no faster than its float32: without AMX, OpenVINO took 1.4 times as long.

    Raises:
      ModuleError: the CPU has the instructions, but OpenVINO is not installed.
    """
    units = cpu.bfloat16_units()
    if not units:
        warn_once(
            _LOGGER, "This CPU has no bfloat16 instructions (AVX512_BF16 or AMX); computing in float32."
        )
    elif cpu.is_intel() and "amx_bf16" not in units:
        warn_once(
            _LOGGER,
            "This CPU has AVX512_BF16 but no AMX, so bfloat16 would be slower than float32 on this Intel CPU; "
            "computing in float32.",
        )
    elif "BF16" not in _openvino().Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
        warn_once(_LOGGER, "OpenVINO does not use this CPU's bfloat16 instructions; computing in float32.")
    else:
        return True
    return False


class UnequalError(ModuleError):
    """The answers differ from the module's."""


def open_checked(
    spec: ModelSpec, payload: memoryview, precision: str, threads: int | None = None
) -> EngineSession:
    """Opens the model in a precision and compares it with LiteRT's float32 on the probe batch.

    Raises:
      UnequalError: they differ by more than ``TOLERANCE`` and ``TIE`` allow.
      ModuleError: OpenVINO, or LiteRT, is not installed, or cannot run the model.
    """
    pixels = probe_batch(spec.height, spec.width)
    expected = litert_engine.open_payload(spec, payload, threads).run(pixels)
    chunks, found = _opened(spec, lambda core: _read_litert(core, payload), precision, pixels, threads)
    try:
        check_outputs(
            expected,
            found,
            tolerance=TOLERANCE[precision],
            tie=TIE[precision],
            cause=f"{precision} by OpenVINO",
        )
    except ModuleError as error:
        raise UnequalError(str(error)) from error
    return EngineSession(chunks.run, OPENVINO, precision)


def open_int8_model(
    spec: ModelSpec, model: Int8Model, threads: int | None = None
) -> tuple[EngineSession, Outputs]:
    """Opens a quantized model; returns it with its answers to the probe batch on this machine.

    Raises:
      ModuleError: OpenVINO is not installed, or cannot run the model.
    """
    pixels = probe_batch(spec.height, spec.width)
    chunks, found = _opened(
        spec, lambda core: core.read_model(model.xml, model.weights), INT8, pixels, threads
    )
    return EngineSession(chunks.run, OPENVINO, INT8), found


def _open_int8(spec: ModelSpec, payload: memoryview, threads: int | None) -> EngineSession:
    """Opens the int8 model and compares it with the launcher's answers."""
    model, expected = unpack_int8(payload)
    session, found = open_int8_model(spec, model, threads)
    try:
        check_outputs(
            expected, found, tolerance=TOLERANCE[INT8], tie=TIE[INT8], cause="int8 on this worker's CPU"
        )
    except ModuleError as error:
        raise ModuleError(
            f"{error}, compared with the launcher's int8; run the launcher on a machine of the workers' kind, or use "
            "--precision float32"
        ) from error
    return session


def _opened(
    spec: ModelSpec,
    read: Callable[[Any], Any],
    precision: str,
    pixels: np.ndarray,
    threads: int | None,
) -> tuple[Chunks, Outputs]:
    """Compiles the model from ``read``; returns it with its answers to the pixels."""
    # If several threads are the first to touch OpenVINO's arrays at once, they deadlock (2026.4: one holds the guard
    # of a C++ static and waits for the GIL, the other holds the GIL and waits for the guard). So a single thread
    # starts, with one chunk, however small chunks are.
    with _lock:
        streams = compute_pool(threads).threads
        chunks = Chunks(spec, spec.chunk_size(CHUNK), _requests(spec, read, precision, streams), threads)
        chunks.run(pixels[:1])
        return chunks, chunks.run(pixels)


def _read_litert(core: Any, payload: memoryview) -> Any:
    # OpenVINO reads its own format from memory, but LiteRT's only from a file.
    with tempfile.TemporaryDirectory(prefix="beamlabel-") as directory:
        path = Path(directory) / "model.tflite"
        path.write_bytes(payload)
        return core.read_model(path)


def _openvino() -> Any:
    try:
        import openvino
    except ImportError as error:
        raise ModuleError(f"OpenVINO cannot be imported ({error}): {install_extra('openvino')}") from error
    return openvino


def _requests(
    spec: ModelSpec, read: Callable[[Any], Any], precision: str, streams: int
) -> Callable[[], _Request]:
    """Compiles the model for streams of one thread each; returns a function that creates requests to them."""
    openvino = _openvino()
    core = openvino.Core()
    options = {
        # Set for float32 too, because with AMX OpenVINO would choose bfloat16. In int8 it applies to the other layers.
        "INFERENCE_PRECISION_HINT": "bf16" if precision == BFLOAT16 else "f32",
        "NUM_STREAMS": streams,
        "INFERENCE_NUM_THREADS": streams,
        # The threads that load images, and other processes, need these cores too.
        "ENABLE_CPU_PINNING": False,
    }
    try:
        model = read(core)
        model.reshape([spec.chunk_size(CHUNK), spec.height, spec.width, 3])
        compiled = core.compile_model(model, "CPU", options)
        if (
            compiled.get_property("INFERENCE_PRECISION_HINT").get_type_name()
            != options["INFERENCE_PRECISION_HINT"]
        ):
            raise UnequalError(f"OpenVINO does not compute this model in {precision}")
    except RuntimeError as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[-1]
        raise ModuleError(f"OpenVINO cannot run the model: {reason}") from error
    return lambda: _Request(spec, compiled)


class _Request:
    """One inference at a time."""

    def __init__(self, spec: ModelSpec, compiled: Any) -> None:
        self._request = compiled.create_infer_request()
        self._targets = [
            None if name is None else self._request.get_tensor(name)
            for name in (spec.logits_tensor, spec.features_tensor)
        ]

    def run(self, images: Images) -> list[np.ndarray | None]:
        """Logits and features, float32[N, D] each or None, for 1 to a chunk of images."""
        fill(self._request.get_input_tensor().data, images)
        self._request.infer()
        # Views of memory that the next inference overwrites; the caller copies them first.
        return [None if target is None else target.data[: len(images)] for target in self._targets]
