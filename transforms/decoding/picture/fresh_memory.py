"""Decodes that leave a part of the pixels as their memory was.

libtiff takes a fax page for read where its codes end or break within it; what it did not write is what the process had
there before: other pixels each time, and perhaps those of another image. So it is decoded twice, into memory that was
filled with bits of two kinds, and has to come out the same.
"""

from __future__ import annotations

import ctypes
import functools
import threading
from collections.abc import Callable
from typing import Any

import numpy as np

from beamlabel.transforms.decoding.picture.options import refusal
from beamlabel.transforms.records import Reason

# mallopt(3): what fresh memory is filled with; glibc alone has it.
_M_PERTURB = -6
_BITS = 0x55, 0xAA
_lock = threading.Lock()


def same_in_any_memory(decode: Callable[[], np.ndarray], what: str) -> np.ndarray:
    """What ``decode`` returns, twice.

    Args:
      decode: an array of its own each time.
      what: for the error.

    Raises:
      ImageError: ``corrupt`` if it returns two.
    """
    mallopt = _mallopt()
    if mallopt is None:
        return decode()
    with _lock:
        try:
            found = []
            for bits in _BITS:
                mallopt(_M_PERTURB, bits)
                found.append(decode())
        finally:
            mallopt(_M_PERTURB, 0)
    if not np.array_equal(found[0], found[1]):
        raise refusal(Reason.CORRUPT, f"{what}: not all of its pixels are there")
    return found[0]


@functools.cache
def _mallopt() -> Any:
    try:
        libc = ctypes.CDLL(None)
        libc.gnu_get_libc_version  # noqa: B018 (others may have a mallopt that does something else)
        return libc.mallopt
    except (AttributeError, OSError, TypeError):
        return None
