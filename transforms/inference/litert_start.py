"""LiteRT writes a line on stderr when the first model of a process runs; here it goes to the debug log.

The line tears a progress bar. LiteRT has no setting for it. So the first model is one of a single addition, and what is
on stderr meanwhile, a millisecond, is taken from there: no error of a module's own model can be lost.
"""

from __future__ import annotations

import base64
import threading
import zlib
from contextlib import suppress
from typing import Any

from beamlabel.transforms.worker.native_stderr import without_native_lines

# y = x + 1 for one float32, as TensorFlow 2.21 converts it; compressed by zlib.
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
    """Has LiteRT write its line where nobody sees it; does nothing from the second call on.

    Args:
      interpreter: the class ``ai_edge_litert.interpreter.Interpreter``.
    """
    global _is_started
    with _lock:
        if _is_started:
            return
        _is_started = True
        # If anything is wrong, the module's own model, which comes next, raises it.
        with suppress(OSError, RuntimeError, ValueError), without_native_lines():
            interpreter(model_content=_model(), num_threads=1).allocate_tensors()


def _model() -> bytes:
    return zlib.decompress(base64.b64decode(_MODEL))
