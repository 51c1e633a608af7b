"""Detects decodes that leave part of the pixels uninitialized.

libtiff counts a fax page as read if its codes end or break within it. The pixels that it did not write hold what the
process had in that memory before: different pixels each time, perhaps those of another image. So the page is decoded
twice, into memory filled with two different patterns, and both results must be equal.
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

# mallopt(3): the pattern for fresh memory; only glibc has it.
_M_PERTURB = -6
_BITS = 0x55, 0xAA
_lock = threading.Lock()


def same_in_any_memory(decode: Callable[[], np.ndarray], what: str) -> np.ndarray:
    """Calls ``decode`` twice and returns its result.

    Args:
      decode: returns a new array each time.
      what: name for the error.

    Raises:
      ImageError: ``corrupt`` if the results differ.
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
        raise refusal(Reason.CORRUPT, f"{what}: some of its pixels are missing")
    return found[0]


@functools.cache
def _mallopt() -> Any:
    try:
        libc = ctypes.CDLL(None)
        libc.gnu_get_libc_version  # noqa: B018 (others may have a mallopt that does something else)
        return libc.mallopt
    except (AttributeError, OSError, TypeError):
        return None
