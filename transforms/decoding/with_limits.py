"""The parent's side of decoding in a child process with a deadline and limits on CPU time and memory.

The first such image starts the children: a run over usual JPEGs, PNGs and WebPs starts none.
"""

from __future__ import annotations

import atexit
import json
import os
import threading
from contextlib import ExitStack

from beamlabel.transforms.decoding.in_place import Decoded
from beamlabel.transforms.decoding.picture.options import DecodeOptions, refusal
from beamlabel.transforms.decoding.picture.pillow_image import large_lock
from beamlabel.transforms.records import Reason
from beamlabel.transforms.worker.allocators import empty_pixels
from beamlabel.transforms.worker.cpu import available_cores
from beamlabel.transforms.worker.limited_process import LimitedProcesses, OverdueError, ProcessDiedError

_CHILD = "beamlabel.transforms.decoding.decoder_process"
# The system may be why a child dies, for example when memory runs out, so the image is tried once more. A child that
# dies before it has the request was idle, or did not start.
_CRASHES, _TRIES = 2, 4

_children: LimitedProcesses | None = None
_lock = threading.Lock()


def decode_with_limits(data: bytes, options: DecodeOptions) -> Decoded:
    """Does what ``decode_in_place`` does, in a child.

    Raises:
      ImageError: as there; ``decode_timeout`` after ``options.decode_deadline`` seconds, ``decode_error`` if the
        decoder crashes or needs more memory than it may take.
      RuntimeError: no child starts, or a bug in beamlabel raised an exception in a child.
    """
    crashes, last = 0, ""
    for _ in range(_TRIES):
        try:
            return _ask(data, options)
        except OverdueError:
            detail = f"not decoded within --decode_deadline {options.decode_deadline:g} s"
            raise refusal(Reason.DECODE_TIMEOUT, detail) from None
        except ProcessDiedError as error:
            crashes, last = crashes + error.begun, str(error)
            if crashes == _CRASHES:
                raise refusal(Reason.DECODE_ERROR, f"the decoder {last}") from None
    raise RuntimeError(f"No decoder process stays alive; the last one {last}")


def _ask(data: bytes, options: DecodeOptions) -> Decoded:
    words = json.dumps(
        {
            "height": options.height,
            "width": options.width,
            "crop": options.crop,
            "max_pixels": options.max_pixels,
            "color_profile": options.color_profile,
            "decode_deadline": options.decode_deadline,
        }
    ).encode()
    with ExitStack() as held:
        child = _pool().take(held)
        answer = json.loads(child.ask(words, data, options.decode_deadline, large_lock(), held))
        if "reason" in answer:
            raise refusal(Reason(answer["reason"]), str(answer["detail"]))
        if "fault" in answer:
            raise RuntimeError(str(answer["fault"]))
        pixels = empty_pixels(options.height, options.width)
        child.read_content(pixels.data.cast("B"))
    return Decoded(
        pixels,
        int(answer["width"]),
        int(answer["height"]),
        str(answer["format"]),
        answer["converted"] is True,
    )


def _pool() -> LimitedProcesses:
    global _children
    with _lock:
        if _children is None:
            _children = LimitedProcesses(_CHILD, available_cores())
            atexit.register(_children.close)
        return _children


def _forget() -> None:
    global _children, _lock
    if _children is not None:
        _children.forget()
    _children, _lock = None, threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)
