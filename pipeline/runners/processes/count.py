"""The number of worker processes of a local run, by cores and memory."""

from __future__ import annotations

from dataclasses import dataclass

from beamlabel.pipeline.job.plan import Plan
from beamlabel.transforms.secrets.logs import get_logger

_LOGGER = get_logger("beamlabel")

# Measured, see benchmarks/many_cores.md: the cores that one process keeps busy, and the fewest cores for which worker
# processes are worth their start and memory.
CORES_A_PROCESS = 4
FEWEST_CORES = 6
# Memory for the launcher and the rest of the machine.
_SPARE_BYTES = 512 << 20
# Memory of a worker process: Python, Beam, Arrow and LiteRT take 110 MB that no other process shares (measured), a unit
# of 10,000 rows of 1,280 features and its compressed pages up to 150 MB.
_PROCESS_BYTES = 300 << 20
# Memory of a computing thread: an interpreter's packed weights are as large as the compiled model, its activations took
# 3 to 5 times its input as float32 in chunks of 8 (MobileNet V2, 160 and 224 pixels; 10 times in chunks of 16), and a
# decoder holds an image at its full size.
_ACTIVATIONS = 8
_THREAD_BYTES = 24 << 20
_CHUNK = 8


@dataclass(frozen=True)
class Need:
    """The quantities that determine a worker's memory.

    Attributes:
      model_bytes: of the compiled model.
      pixels: height times width of its input.
      chunk: images that a thread runs at once.
      waiting_bytes: maximum of the decoded images that wait in a process.
    """

    model_bytes: int
    pixels: int
    chunk: int
    waiting_bytes: int

    @property
    def process_bytes(self) -> int:
        """Bytes of a process without its computing threads."""
        return _PROCESS_BYTES + self.waiting_bytes

    @property
    def thread_bytes(self) -> int:
        """Bytes of a computing thread."""
        return _THREAD_BYTES + self.model_bytes + _ACTIVATIONS * self.chunk * self.pixels * 12


def need_of(planned: Plan) -> Need:
    """The memory quantities of a job's workers."""
    job = planned.job
    decode = job.load.decode
    model_bytes = planned.staged[job.predict.artifact_path].stat().st_size
    pixels = decode.height * decode.width
    return Need(model_bytes, pixels, _CHUNK, job.load.most_decoded(4) * job.load.pixel_bytes)


def worker_processes(
    wanted: int | None, cores: int, threads: int | None, memory: int | None, need: Need
) -> int:
    """The number of processes to use; 1: none is started, and the launcher does the work.

    Args:
      wanted: ``--worker_processes``; None for auto.
      cores: number that all processes together may use.
      threads: ``--worker_threads`` of each process; None: the processes share the cores.
      memory: available bytes; None if unknown.
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
    words = "%d worker processes need about %.1f GB, but only %.1f GB of memory are free"
    facts = (count, (compute + count * need.process_bytes) / 1e9, memory / 1e9)
    if wanted is not None:
        _LOGGER.warning(words + "; a smaller --worker_processes is safer", *facts)
        return count
    _LOGGER.warning(words + "; starting %d", *facts, fit)
    return fit
