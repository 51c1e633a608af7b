"""How many images an engine runs at a time on this CPU: measured when the first artifact is opened, then remembered.

A chunk of one image wastes the weights that it has brought into the cache, one of sixteen may push the activations
out of it; which is best depends on the CPU and the model. The measurement is short, one thread's, and its result is
kept in the host's cache for the CPU's model, the engine and the compiled model. A chunk counts only if the answers for
the probe images are those of the engine's usual chunk to the last bit: results must not depend on the machine.
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
"""Of CPU time, of the whole measurement; chunks that it leaves no time for are not candidates."""

# So much faster another chunk has to be than the usual one: less is noise.
_GAIN = 0.03
_TIMED_IMAGES = 8
_LOCK_SECONDS = 10.0
_FOLDER = "chunks"

_LOGGER = get_logger(__name__)

Open = Callable[[int], ChunkRunner]


def chunk_size(spec: ModelSpec, engine: str, usual: int, open_runner: Open) -> int:
    """The images in a chunk: the model's own batch, what is remembered, or what is measured now.

    Args:
      spec: the model.
      engine: what runs it, with its version.
      usual: the engine's, if the measurement tells of no better one.
      open_runner: opens the model for a chunk of so many images.
    """
    if spec.batch is not None:
        return spec.batch
    key = json.dumps([cpu.model(), engine, usual, spec.to_json()])
    path = cache_dir() / _FOLDER / f"{hashlib.sha256(key.encode()).hexdigest()[:32]}.json"
    found = _remembered(path)
    if found is not None:
        return found
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        # Several processes start at a time: one measures, and is not disturbed by the others.
        lock = InterProcessLock(path.with_suffix(".lock"))
        if not lock.acquire(timeout=_LOCK_SECONDS):
            return usual
        try:
            found = _remembered(path) or measured(spec, usual, open_runner)
            _remember(path, found)
        finally:
            lock.release()
    except (OSError, RuntimeError) as error:  # fasteners raises the second where a file system has no locks
        _LOGGER.debug("the chunk is not measured, since it cannot be remembered: %s", error)
    return found or usual


def measured(spec: ModelSpec, usual: int, open_runner: Open) -> int:
    """The fastest chunk of those that there is time for, by the CPU time of an image."""
    begin = time.thread_time()
    probe = probe_batch(spec.height, spec.width)
    single = open_runner(1)
    opening = time.thread_time() - begin
    single.run(probe[:1])
    if time.thread_time() - begin - opening > SECONDS / _images(usual) / 2:
        return usual  # of a large model nothing else could be tried in the time
    expected, seconds = _tried(usual, probe, open_runner)
    found = {usual: seconds}
    for chunk in sorted(set(CHUNKS) - {usual}, key=lambda size: abs(math.log2(size / usual))):
        if time.thread_time() - begin + opening + seconds * _images(chunk) > SECONDS:
            continue
        answers, found_seconds = _tried(chunk, probe, open_runner)
        if answers == expected:
            found[chunk] = found_seconds
        else:
            _LOGGER.info("a chunk of %d gives other bits than one of %d: it is not used", chunk, usual)
    best = min(found, key=lambda chunk: found[chunk])
    return best if found[best] < seconds * (1 - _GAIN) else usual


def _images(chunk: int) -> int:
    """How many images ``_tried`` runs."""
    return max(chunk, PROBE_IMAGES) + chunk * max(1, _TIMED_IMAGES // chunk)


def _tried(chunk: int, probe: np.ndarray, open_runner: Open) -> tuple[list[set[bytes]], float]:
    """For each probe image its answers, at all places in a chunk; and the CPU seconds of an image."""
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
