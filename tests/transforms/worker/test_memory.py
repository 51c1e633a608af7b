"""What a worker holds must not depend on how large a unit is or how long it runs: counted in bytes and arenas."""

from __future__ import annotations

import dataclasses
import mmap
import subprocess
import sys
import tracemalloc
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from beamlabel.transforms.decoding.decode import DecodeOptions, decode
from beamlabel.transforms.inputs.packed_refs import PackedRef, pack, unpack
from beamlabel.transforms.worker.allocators import empty_pixels, use_jemalloc_pool
from beamlabel.transforms.worker.compute_pool import available_cores
from beamlabel.transforms.writing.staged_files import write_data
from beamlabel.transforms.writing.unit_rows import CHUNK_ROWS, UnitRows
from support import needs
from support.images import encode, photo
from support.outputs import PLAIN, prediction

DIM = 1280


@pytest.fixture
def pool():
    """Arrow's pool, counting from nothing."""
    before = pa.default_memory_pool()
    counting = pa.proxy_memory_pool(before)
    pa.set_memory_pool(counting)
    yield counting
    pa.set_memory_pool(before)


def write_rows(count: int, folder: Path) -> None:
    """A unit through the sink, a chunk at a time as the job hands it over."""
    spec = dataclasses.replace(PLAIN, embedding_dim=DIM)
    vectors = np.random.default_rng(0).standard_normal((CHUNK_ROWS, DIM)).astype(np.float32)
    with UnitRows(spec, str(folder)) as rows:
        for start in range(0, count, CHUNK_ROWS):
            # In the wrong order within a chunk and across two, as images come.
            numbers = [n ^ 1 for n in range(start, start + CHUNK_ROWS)]
            rows.add(
                [
                    dataclasses.replace(prediction(n, spec=PLAIN), embedding=vectors[n % CHUNK_ROWS])
                    for n in numbers
                ]
            )
        with (folder / "shard").open("wb") as file:
            write_data(file, rows.in_order(), spec)


def test_the_sink_holds_as_much_of_a_large_unit_as_of_a_small_one(pool, tmp_path):
    write_rows(6 * CHUNK_ROWS, tmp_path)
    small = pool.max_memory()
    write_rows(40 * CHUNK_ROWS, tmp_path)
    whole = 40 * CHUNK_ROWS * DIM * 4
    assert pool.max_memory() < 1.25 * small
    assert pool.max_memory() < whole / 2
    assert pool.bytes_allocated() == 0


def test_references_are_unpacked_as_they_are_needed():
    refs = [PackedRef(row, f"gs://bucket/photos/{row:07d}.jpg") for row in range(10_000)]
    packed, _ = pack(refs, with_listing_stat=False)
    tracemalloc.start()
    try:
        assert sum(1 for _ in unpack(packed)) == 10_000
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 500_000


def test_uris_of_any_characters_are_unpacked_as_they_were():
    refs = [PackedRef(row, f'é\n\u2028\udcff"{row}' * (row % 50)) for row in range(5000)]
    assert list(unpack(pack(refs, with_listing_stat=False).data)) == refs


def test_pixels_lie_in_pages_of_their_own():
    pixels = decode(encode(photo(), "JPEG"), DecodeOptions(160, 160)).pixels
    assert pixels.shape == (160, 160, 3) and pixels.flags.c_contiguous and pixels.flags.writeable
    assert pixels.ctypes.data % mmap.PAGESIZE == 0
    other = empty_pixels(160, 160)
    assert abs(other.ctypes.data - pixels.ctypes.data) >= pixels.nbytes


ARENAS = """
import ctypes, sys, threading
from beamlabel.transforms.worker.allocators import bound_malloc_arenas
libc = ctypes.CDLL(None)
libc.malloc.restype = ctypes.c_void_p
if sys.argv[1] == "bounded":
    bound_malloc_arenas()
together = threading.Barrier(64)
def allocate():
    together.wait()
    libc.malloc(ctypes.c_size_t(1000))  # without the GIL
    together.wait()
threads = [threading.Thread(target=allocate) for _ in range(64)]
[thread.start() for thread in threads]
[thread.join() for thread in threads]
libc.malloc_stats()
"""


def arenas(kind: str) -> int:
    done = subprocess.run(
        [sys.executable, "-c", ARENAS, kind], capture_output=True, text=True, check=True, timeout=60
    )
    return done.stderr.count("Arena ")


def test_threads_share_as_many_arenas_as_there_are_cores():
    if not sys.platform.startswith("linux") or not arenas("free"):
        needs.lacking("glibc")
    assert arenas("free") > available_cores() + 1
    assert arenas("bounded") <= available_cores()


def test_arrow_allocates_from_jemalloc_unless_the_user_chose(monkeypatch):
    if "jemalloc" not in pa.supported_memory_backends():
        needs.lacking("jemalloc in pyarrow")
    before = pa.default_memory_pool()
    try:
        pa.set_memory_pool(pa.system_memory_pool())
        monkeypatch.setenv("ARROW_DEFAULT_MEMORY_POOL", "system")
        use_jemalloc_pool()
        assert pa.default_memory_pool().backend_name == "system"
        monkeypatch.delenv("ARROW_DEFAULT_MEMORY_POOL")
        use_jemalloc_pool()
        assert pa.default_memory_pool().backend_name == "jemalloc"
    finally:
        pa.set_memory_pool(before)
