"""Runs batches in chunks of one size, each in one thread: this is how CPU engines use all cores."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from queue import Empty, LifoQueue
from typing import Protocol

import numpy as np

from beamlabel.transforms.inference.artifact import ModelSpec
from beamlabel.transforms.inference.engines import Images, Outputs
from beamlabel.transforms.worker.compute_pool import compute_pool


class ChunkRunner(Protocol):
    """Runs one chunk; at most one thread may use it at a time."""

    def run(self, images: Images) -> list[np.ndarray | None]:
        """Logits and features, float32[N, D] each or None, for 1 to a chunk of images; the next run may
        overwrite them."""


class Chunks:
    """Runners of one model, created on demand. Thread-safe.

    Args:
      spec: the model.
      size: number of images in a chunk.
      open_runner: creates a runner. It is called once at first, so that a model that cannot run fails now and not at
        the first batch.
      threads: number of threads in the process's pool, see ``compute_pool``.
    """

    def __init__(
        self, spec: ModelSpec, size: int, open_runner: Callable[[], ChunkRunner], threads: int | None = None
    ) -> None:
        self._spec = spec
        self._size = size
        self._open_runner = open_runner
        self._threads = threads
        self._idle: LifoQueue[ChunkRunner] = LifoQueue()
        self._idle.put(open_runner())

    def run(self, images: Images) -> Outputs:
        """Logits and features of a batch of any size."""
        count, spec = len(images), self._spec
        logits = None if spec.num_classes is None else np.empty((count, spec.num_classes), np.float32)
        features = None if spec.embedding_dim is None else np.empty((count, spec.embedding_dim), np.float32)

        def run_chunk(start: int) -> None:
            runner = self._take()
            try:
                results = runner.run(images[start : start + self._size])
                for whole, part in zip((logits, features), results, strict=True):
                    if whole is not None:
                        whole[start : start + self._size] = part
            finally:
                self._idle.put(runner)

        compute_pool(self._threads).run(run_chunk, range(0, count, self._size), urgent=True)
        return logits, features

    def _take(self) -> ChunkRunner:
        try:
            return self._idle.get_nowait()
        except Empty:
            return self._open_runner()


def fill(target: np.ndarray, images: Images) -> None:
    """Copies 1 to N images into uint8[N, H, W, 3]; repeats the last image to fill the rest, so that the model takes
    it."""
    for place in range(len(target)):
        target[place] = images[min(place, len(images) - 1)]


def padded(images: np.ndarray, size: int) -> Iterator[tuple[np.ndarray, int]]:
    """Cuts [N, ...] into parts of one size, padding the last with its last image; yields each with its real count."""
    for start in range(0, len(images), size):
        part = images[start : start + size]
        filling = np.repeat(part[-1:], size - len(part), axis=0)
        yield np.concatenate([part, filling]), len(part)
