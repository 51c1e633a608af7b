"""Settings that make the allocators of a worker process return freed memory.

An allocator that keeps freed memory grows as long as a run meets larger units and worse orders of freeing. Results do
not depend on these settings; a platform that lacks one runs without it.
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
# Smaller arrays are not worth the system call and waste most of their last page.
_OWN_PAGES_BYTES = 16 * mmap.PAGESIZE


def bound_malloc_arenas() -> None:
    """Limits glibc's arenas to one per core, instead of eight; MALLOC_ARENA_MAX overrides it.

    Memory freed in one arena is not available to threads of another, and 64 fetching threads would have one each.
    """
    if sys.platform != "linux" or "MALLOC_ARENA_MAX" in os.environ:
        return
    libc = ctypes.CDLL(None)
    if hasattr(libc, "mallopt"):  # other C libraries have no arenas
        libc.mallopt(_M_ARENA_MAX, available_cores())


def choose_arrow_allocator() -> None:
    """Makes Arrow use jemalloc; call it before the first import of pyarrow, which reads the variable once.

    With mimalloc a unit of 10,000 rows of 1280 features, at most 19 MB of Arrow data, took 36 MB of memory.
    """
    if sys.platform == "linux":  # whose builds of Arrow include it
        os.environ.setdefault(_ARROW_ALLOCATOR, "jemalloc")


def use_jemalloc_pool() -> None:
    """Switches a loaded pyarrow to jemalloc, set to return freed memory at once.

    Allocations deep in Arrow's own code keep the initial allocator, see ``choose_arrow_allocator``.
    ARROW_DEFAULT_MEMORY_POOL overrides both.
    """
    import pyarrow as pa

    chosen = os.environ.get(_ARROW_ALLOCATOR, "jemalloc")
    if chosen != "jemalloc" or "jemalloc" not in pa.supported_memory_backends():
        return
    pa.set_memory_pool(pa.jemalloc_memory_pool())
    pa.jemalloc_set_decay_ms(0)


def release_unused_arrow_memory() -> None:
    """Returns Arrow's freed memory to the system: its next use may be minutes away."""
    import pyarrow as pa

    pa.default_memory_pool().release_unused()


def empty_pixels(height: int, width: int) -> np.ndarray:
    """An empty uint8[height, width, 3] in its own pages, which are returned to the system with the array.

    Several hundred images wait at any time. Among the larger and shorter-lived buffers of decoding they would leave
    holes of all sizes, and malloc's heap would grow for minutes.
    """
    size = height * width * 3
    if size < _OWN_PAGES_BYTES or not hasattr(mmap, "MAP_PRIVATE"):
        return np.empty((height, width, 3), np.uint8)
    pages = mmap.mmap(-1, size, mmap.MAP_PRIVATE)
    return np.frombuffer(pages, np.uint8).reshape(height, width, 3)
