"""Time and memory limits for the process that loads a module."""

from __future__ import annotations

from dataclasses import dataclass

from beamlabel.transforms.worker.memory import available_memory

DEADLINE_SECONDS = 600.0
# Bytes left for the launcher and the rest of the machine.
_SPARE_BYTES = 512 << 20
# TensorFlow takes 0.6 GB to import, and 1.5 GB in all to compile a module of 14 MB (measured). The process may take
# this much even if less is free; other programs then have to give up memory.
_LEAST_BYTES = 4 << 30


@dataclass(frozen=True)
class Limits:
    """Limits for the process that loads a module.

    The memory limit covers writable memory: the heap and anonymous mappings (RLIMIT_DATA of getrlimit(2), on Linux).
    That is close to real usage. The address space (RLIMIT_AS) is three times that, since TensorFlow maps its libraries
    and reserves room for each thread.

    Attributes:
      seconds: total time to resolve, load, try and compile the module.
      memory: bytes; None: the free memory.
    """

    seconds: float = DEADLINE_SECONDS
    memory: int | None = None

    def bytes(self) -> int | None:
        """The current memory limit; None if the system does not report free memory."""
        if self.memory is not None:
            return self.memory
        free = available_memory()
        return None if free is None else max(_LEAST_BYTES, free - _SPARE_BYTES)
