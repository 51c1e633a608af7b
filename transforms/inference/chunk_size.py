"""Determines how many images an engine runs at a time on this CPU: measured once per artifact, then remembered.

A chunk of one image uses the weights in the CPU's cache only once; one of sixteen may push the activations out of the
cache. The best size depends on the CPU and the model. The measurement is short and runs in one thread. Its result is
kept in the host's cache per CPU model, engine and compiled model. A chunk size is only used if its answers for the
probe images equal those of the engine's usual size to the last bit: results must not depend on the machine.
"""

from __future__ import annotations

import hashlib
import json
import math
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from fasteners import InterProcessLock

from beamlabel.transforms.inference.artifact import ModelSpec
from beamlabel.transforms.inference.interpreter_pool import ChunkRunner
from beamlabel.transforms.inference.probe import PROBE_IMAGES, probe_batch
from beamlabel.transforms.secrets.logs import get_logger
from beamlabel.transforms.storage.host_cache import cache_dir
from beamlabel.transforms.worker import cpu

CHUNKS = (1, 2, 4, 8, 16)
SECONDS = 0.28
"""Limit on the CPU time of the whole measurement, in seconds; sizes that do not fit into it are skipped."""

# How much faster another size must be than the usual one; smaller differences are noise.
_GAIN = 0.03
_TIMED_IMAGES = 8
_LOCK_SECONDS = 10.0
_DIRECTORY = "chunks"

_LOGGER = get_logger(__name__)

Open = Callable[[int], ChunkRunner]


def chunk_size(spec: ModelSpec, engine: str, usual: int, open_runner: Open) -> int:
    """The images in a chunk: the model's own batch size, a remembered size, or one measured now.

    Args:
      spec: the model.
      engine: the engine that runs the model, with its version.
      usual: the engine's usual size, used if the measurement finds no better one.
      open_runner: opens the model for a given chunk size.
    """
    if spec.batch is not None:
        return spec.batch
    key = json.dumps([cpu.model(), engine, usual, spec.to_json()])
    path = cache_dir() / _DIRECTORY / f"{hashlib.sha256(key.encode()).hexdigest()[:32]}.json"
    found = _remembered(path)
    if found is not None:
        return found
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        # Several processes start together: one measures while the others wait, and so do not disturb it.
        lock = InterProcessLock(path.with_suffix(".lock"))
        if not lock.acquire(timeout=_LOCK_SECONDS):
            return usual
        try:
            found = _remembered(path) or measured(spec, usual, open_runner)
            _remember(path, found)
        finally:
            lock.release()
    except (OSError, RuntimeError) as error:  # fasteners raises RuntimeError if a file system has no locks
        _LOGGER.debug("The chunk size is not measured, because it cannot be stored: %s", error)
    return found or usual


def measured(spec: ModelSpec, usual: int, open_runner: Open) -> int:
    """The fastest chunk size that there is time to try, by CPU time per image."""
    begin = time.thread_time()
    probe = probe_batch(spec.height, spec.width)
    single = open_runner(1)
    opening = time.thread_time() - begin
    single.run(probe[:1])
    if time.thread_time() - begin - opening > SECONDS / _images(usual) / 2:
        return usual  # a large model leaves no time to try another size
    expected, seconds = _tried(usual, probe, open_runner)
    found = {usual: seconds}
    for chunk in sorted(set(CHUNKS) - {usual}, key=lambda size: abs(math.log2(size / usual))):
        if time.thread_time() - begin + opening + seconds * _images(chunk) > SECONDS:
            continue
        answers, found_seconds = _tried(chunk, probe, open_runner)
        if answers == expected:
            found[chunk] = found_seconds
        else:
            _LOGGER.info(
                "Chunks of %d images are not used: their answers differ in bits from those of %d images",
                chunk,
                usual,
            )
    best = min(found, key=lambda chunk: found[chunk])
    return best if found[best] < seconds * (1 - _GAIN) else usual


def _images(chunk: int) -> int:
    """The number of images that ``_tried`` runs."""
    return max(chunk, PROBE_IMAGES) + chunk * max(1, _TIMED_IMAGES // chunk)


def _tried(chunk: int, probe: np.ndarray, open_runner: Open) -> tuple[list[set[bytes]], float]:
    """For each probe image its answers at all places in a chunk, and the CPU seconds per image."""
    runner = open_runner(chunk)
    numbers = [number % PROBE_IMAGES for number in range(max(chunk, PROBE_IMAGES))]
    answers: list[set[bytes]] = [set() for _ in probe]
    for start in range(0, len(numbers), chunk):
        part = numbers[start : start + chunk]
        outputs = [None if output is None else output.copy() for output in runner.run(probe[part])]
        for place, number in enumerate(part):
            answers[number].add(b"".join(one[place].tobytes() for one in outputs if one is not None))
    rounds = max(1, _TIMED_IMAGES // chunk)
    images = probe[numbers[:chunk]]
    begin = time.thread_time()
    for _ in range(rounds):
        runner.run(images)
    return answers, (time.thread_time() - begin) / (rounds * chunk)


def _remembered(path: Path) -> int | None:
    try:
        chunk = json.loads(path.read_text())["chunk"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return chunk if chunk in CHUNKS else None


def _remember(path: Path, chunk: int) -> None:
    partial = path.with_suffix(".partial")
    partial.write_text(json.dumps({"chunk": chunk, "cpu": cpu.model()}))
    partial.replace(path)
