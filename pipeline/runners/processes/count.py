"""How many worker processes a local run starts: by the cores, and by the memory that they may take."""

from __future__ import annotations

from dataclasses import dataclass

from beamlabel.pipeline.job.plan import Plan
from beamlabel.transforms.secrets.logs import get_logger

_LOGGER = get_logger("beamlabel")

# Measured, see benchmarks/many_cores.md: one process keeps so many cores busy, and a process of its own is worth its
# start and memory from so many cores on.
CORES_A_PROCESS = 4
FEWEST_CORES = 6
# What is left to the launcher and the rest of the machine.
_SPARE_BYTES = 512 << 20
# Of a worker process: Python, Beam, Arrow and LiteRT take 110 MB of memory that no other process shares (measured), a
# unit of 10,000 rows of 1,280 features and its compressed pages up to 150.
_PROCESS_BYTES = 300 << 20
# Of a thread that computes: an interpreter's packed weights are as large as the compiled model, its activations took
# 3 to 5 times its input as float32 in chunks of 8 (MobileNet V2, 160 and 224 pixels; 10 times in chunks of 16), and a
# decoder holds an image at its full size.
_ACTIVATIONS = 8
_THREAD_BYTES = 24 << 20
_CHUNK = 8


@dataclass(frozen=True)
class Need:
    """What a worker's memory depends on.

    Attributes:
      model_bytes: of the compiled model.
      pixels: height times width of its input.
      chunk: images that a thread runs at a time.
      waiting_bytes: of the decoded images that wait in a process, at the most.
    """

    model_bytes: int
    pixels: int
    chunk: int
    waiting_bytes: int

    @property
    def process_bytes(self) -> int:
        """Of a process, without its threads that compute."""
        return _PROCESS_BYTES + self.waiting_bytes

    @property
    def thread_bytes(self) -> int:
        """Of a thread that computes."""
        return _THREAD_BYTES + self.model_bytes + _ACTIVATIONS * self.chunk * self.pixels * 12


def need_of(planned: Plan) -> Need:
    """What the workers of a job will need; see ``Need``."""
    job = planned.job
    decode = job.load.decode
    model_bytes = planned.staged[job.predict.artifact_path].stat().st_size
    pixels = decode.height * decode.width
    return Need(model_bytes, pixels, _CHUNK, job.load.most_decoded(4) * job.load.pixel_bytes)


def worker_processes(
    wanted: int | None, cores: int, threads: int | None, memory: int | None, need: Need
) -> int:
    """How many processes to start; 1: none, the launcher does the work.

    Args:
      wanted: ``--worker_processes``; None for auto.
      cores: that all processes together may use.
      threads: ``--worker_threads``, of each process; None: the cores are shared out.
      memory: bytes that may be taken; None if that is not known.
      need: of the job.
    """
    by_cores = -(-cores // (threads or CORES_A_PROCESS)) if cores >= FEWEST_CORES else 1
    count = by_cores if wanted is None else wanted
    if memory is None or count == 1:
        return count
    compute = need.thread_bytes * (cores if threads is None else threads * count)
    fit = max(1, (memory - _SPARE_BYTES - compute) // need.process_bytes)
    if fit >= count:
        return count
    words = "%d worker processes need about %.1f GB, and %.1f GB of memory are free"
    facts = (count, (compute + count * need.process_bytes) / 1e9, memory / 1e9)
    if wanted is not None:
        _LOGGER.warning(words + ": fewer are safer, see --worker_processes", *facts)
        return count
    _LOGGER.warning(words + ": %d are started", *facts, fit)
    return fit
