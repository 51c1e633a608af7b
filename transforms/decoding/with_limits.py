"""Decoding by a child process with a deadline and limits of CPU time and memory: this process's side.

The children are started at the first such image: a run of usual JPEGs, PNGs and WebPs has none.
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
# A child that dies may be the system's fault, as where memory runs out: the image is tried once more. One that dies
# before it has the request has been idle, or did not come up.
_CRASHES, _TRIES = 2, 4

_children: LimitedProcesses | None = None
_lock = threading.Lock()


def decode_with_limits(data: bytes, options: DecodeOptions) -> Decoded:
    """As ``decode_in_place``, in a child.

    Raises:
      ImageError: as there; ``decode_timeout`` after ``options.decode_deadline`` seconds, ``decode_error`` if the
        decoder crashes or needs more memory than it may take.
      RuntimeError: no child comes up; or an exception in a child that is a fault of ours.
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
    raise RuntimeError(f"no process to decode in: it {last}")


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
