"""Sends the line that LiteRT writes to stderr for a process's first model to the debug log.

The line breaks a progress bar, and LiteRT has no setting for it. So the first model is a single addition, and stderr is
filtered during the millisecond that it takes. No error of a module's own model can be lost.
"""

from __future__ import annotations

import base64
import threading
import zlib
from contextlib import suppress
from typing import Any

from beamlabel.transforms.worker.native_stderr import without_native_lines

# y = x + 1 for one float32, converted by TensorFlow 2.21 and compressed by zlib.
_MODEL = (
    "eNptUj1Lw1AUPUljDTTUgkU6dOjgHG3VTZBSKxT6ATW4KNRiMgRsCjVKOwgOLoI/oIOIo+BfcPQXOIpu/g7jvS83oYgXDu/lJPe8c+5LGYBz"
    "0N4qooIySiiiAIs4EwbtQVyMkLCrAW3CvQ5kEBdtsU0wCJ9RFC3JfpXQ6HWPmv3DVq876DSd+n7dqZOupbRN+S75duQHg8llEPojb3DlTS78"
    "cYAs8W+EV8IzYS4+uCegs3g9JRTEi4l8qs3cumKzistKH5eV5jRU1uj45ey68nWXkTyG6gJqdq1qbwIfchZrVu0dptJiZeOfc2LuZm/+E0UP"
    "hBV66rRb/UpjHFC+0HNt0CjVjEG+E0eskRee534iGV3RHA39gDsWe4vKm4Wc9Mo8cpbsy+Rfk2y6+NYEuqxcnP+W71nOeqQ+fl0QHX5fIpwT"
    "zzNuuR5dWDhb1Hv/06OLzyf5N4auuzFLp7emckOSx7VMbGwx0dBk/ZYc04XzNHXv7NdQnn8B5shW4g=="
)
_lock = threading.Lock()
_is_started = False


def start(interpreter: Any) -> None:
    """Runs a tiny model, so that LiteRT writes its line while stderr is filtered; does nothing after the first call.

    Args:
      interpreter: the class ``ai_edge_litert.interpreter.Interpreter``.
    """
    global _is_started
    with _lock:
        if _is_started:
            return
        _is_started = True
        # If LiteRT fails, the module's own model, which comes next, raises the error.
        with suppress(OSError, RuntimeError, ValueError), without_native_lines():
            interpreter(model_content=_model(), num_threads=1).allocate_tensors()


def _model() -> bytes:
    return zlib.decompress(base64.b64decode(_MODEL))
