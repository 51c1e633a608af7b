"""Runs Pillow's decoders, one large image at a time, and explains their exceptions."""

from __future__ import annotations

import contextlib
import os
import re
import struct
import threading
import zlib
from collections.abc import Callable
from contextlib import AbstractContextManager

import numpy as np
from PIL import Image

from beamlabel.transforms.decoding.picture.limits import NeedsLimitsError
from beamlabel.transforms.decoding.picture.options import refusal
from beamlabel.transforms.records import ImageError, Reason

_END_OF_DATA = (EOFError, IndexError, struct.error)
_TRUNCATED = ("truncated", "not enough", "eof while", "end of file", "unexpected end", "incomplete")
_UNSUPPORTED = ("unsupported", "not supported", "cannot handle", "unknown", "unimplemented", "not available")
# From Pillow, libjpeg and OpenCV if they do not raise MemoryError.
_OUT_OF_MEMORY = ("out of memory", "insufficient memory", "failed to allocate", "bad_alloc")
_BOMBS = (Image.DecompressionBombError, Image.DecompressionBombWarning)

# A decoded image takes up to 17 bytes per pixel on its way to RGB. A process decodes large ones one at a time, so that
# a few hostile megabytes do not take the memory of all loading threads at once.
_LARGE_PIXELS = 20_000_000
_large: AbstractContextManager[object] = threading.RLock()


def large_lock() -> AbstractContextManager[object]:
    """The lock held while a large image is decoded."""
    return _large


def use_lock(lock: AbstractContextManager[object]) -> None:
    """Replaces this process's lock with ``lock``: a decoding child uses its parent's."""
    global _large
    _large = lock


def _new_lock() -> None:
    global _large
    _large = threading.RLock()


os.register_at_fork(after_in_child=_new_lock)


def load(
    decode: Callable[[], tuple[np.ndarray, bool]],
    format_: str,
    width: int,
    height: int,
    is_whole: Callable[[], bool] | None = None,
) -> tuple[np.ndarray, bool]:
    """Calls ``decode``, for images above 20 megapixels one at a time.

    Args:
      decode: returns the pixels, and whether a color profile was applied.
      format_: for the error.
      width, height: pixels.
      is_whole: whether the file is complete; called if Pillow cannot read it. None: the file counts as complete.

    Raises:
      ImageError: ``truncated``, ``corrupt``, ``unsupported_format``, ``too_many_pixels`` or ``decode_error``.
    """
    try:
        with _large if width * height > _LARGE_PIXELS else contextlib.nullcontext():
            return decode()
    except (ImageError, MemoryError, NeedsLimitsError):
        raise
    except Exception as error:  # plugins may raise anything
        raise explain(error, format_, is_whole) from error


def is_out_of_memory(error: Exception) -> bool:
    """Whether a library ran out of memory, which says nothing about the file."""
    message = str(error).lower()
    return any(sign in message for sign in _OUT_OF_MEMORY)


# Quotations from the file in messages, such as `b'root:x'`. The file may not be meant for readers of the failures.
_QUOTED = re.compile(
    r"""\bb?(?:'(?:[^'\\]|\\.)*'?|"(?:[^"\\]|\\.)*"?)|(?<!\w)(?:'[^']*'?|"[^"]*"?)""", re.DOTALL
)


def without_quotes(message: str) -> str:
    """A decoder's message without its quotations from the file."""
    return _QUOTED.sub("…", message)


def explain(error: Exception, format_: str, is_whole: Callable[[], bool] | None = None) -> ImageError:
    """Turns a plugin's exception into an ``ImageError``."""
    detail = f"{format_}: {without_quotes(str(error))}"
    message = str(error).lower()
    if is_out_of_memory(error):
        return refusal(Reason.DECODE_ERROR, detail)
    if isinstance(error, _BOMBS):
        return refusal(Reason.TOO_MANY_PIXELS, detail)
    ended = isinstance(error, _END_OF_DATA) or isinstance(error.__cause__, _END_OF_DATA)
    if ended or any(sign in message for sign in _TRUNCATED):
        return refusal(Reason.TRUNCATED, detail)
    if is_whole is not None and not is_whole():
        return refusal(Reason.TRUNCATED, detail)
    if isinstance(error, zlib.error):
        return refusal(Reason.CORRUPT, detail)
    if isinstance(error, NotImplementedError) or any(sign in message for sign in _UNSUPPORTED):
        return refusal(Reason.UNSUPPORTED_FORMAT, detail)
    return refusal(Reason.CORRUPT, detail)
