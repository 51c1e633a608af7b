"""What the allocators of a worker process keep of what was freed: little, so that memory follows what is alive.

An allocator that keeps what it once gave out grows for as long as a run meets larger units and less lucky
orders of freeing. None of this is needed for a result; where a platform lacks something, it is left out.
"""

from __future__ import annotations

import ctypes
import mmap
import os
import sys

import numpy as np

from beamlabel.transforms.worker.cpu import available_cores

# From glibc's malloc.h.
_M_ARENA_MAX = -8
_ARROW_ALLOCATOR = "ARROW_DEFAULT_MEMORY_POOL"
# Smaller arrays are not worth the system call, and waste most of their last page.
_OWN_PAGES_BYTES = 16 * mmap.PAGESIZE


def bound_malloc_arenas() -> None:
    """As many of glibc's arenas as cores, instead of eight times as many; MALLOC_ARENA_MAX overrides it.

    Memory that is freed in one arena serves no thread of another, and 64 fetching threads would have one each.
    """
    if sys.platform != "linux" or "MALLOC_ARENA_MAX" in os.environ:
        return
    libc = ctypes.CDLL(None)
    if hasattr(libc, "mallopt"):  # other C libraries have no arenas
        libc.mallopt(_M_ARENA_MAX, available_cores())


def choose_arrow_allocator() -> None:
    """Lets Arrow allocate from jemalloc; before the first import of pyarrow, which reads the variable once.

    A unit of 10,000 rows of 1280 features, 19 MB of Arrow at most, took 36 MB of memory with mimalloc.
    """
    if sys.platform == "linux":  # where its builds have it
        os.environ.setdefault(_ARROW_ALLOCATOR, "jemalloc")


def use_jemalloc_pool() -> None:
    """As far as pyarrow is there already: jemalloc, which returns what is freed at once.

    What Arrow allocates deep in its own code keeps the allocator of the start, see ``choose_arrow_allocator``.
    ARROW_DEFAULT_MEMORY_POOL overrides both.
    """
    import pyarrow as pa

    chosen = os.environ.get(_ARROW_ALLOCATOR, "jemalloc")
    if chosen != "jemalloc" or "jemalloc" not in pa.supported_memory_backends():
        return
    pa.set_memory_pool(pa.jemalloc_memory_pool())
    pa.jemalloc_set_decay_ms(0)


def release_unused_arrow_memory() -> None:
    """Returns to the system what Arrow has freed: its next use may be minutes away."""
    import pyarrow as pa

    pa.default_memory_pool().release_unused()


def empty_pixels(height: int, width: int) -> np.ndarray:
    """uint8[height, width, 3] in pages of its own, which are returned to the system with the array.

    Some hundred images wait at any time. Among the larger and shorter-lived buffers of decoding they would
    leave holes of all sizes behind, and malloc's heap would grow for minutes.
    """
    size = height * width * 3
    if size < _OWN_PAGES_BYTES or not hasattr(mmap, "MAP_PRIVATE"):
        return np.empty((height, width, 3), np.uint8)
    pages = mmap.mmap(-1, size, mmap.MAP_PRIVATE)
    return np.frombuffer(pages, np.uint8).reshape(height, width, 3)
