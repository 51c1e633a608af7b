"""How long the process that loads a module may work, and how much memory it may take."""

from __future__ import annotations

from dataclasses import dataclass

from beamlabel.transforms.worker.memory import available_memory

DEADLINE_SECONDS = 600.0
# What is left to the launcher and the rest of the machine.
_SPARE_BYTES = 512 << 20
# TensorFlow takes 0.6 GB when it is imported, and to compile a module of 14 MB 1.5 GB in all (measured): so much it may
# take also if less is free, and other programs have to make room.
_LEAST_BYTES = 4 << 30


@dataclass(frozen=True)
class Limits:
    """What the process that loads a module may take.

    The limit of memory is one of what the process may write to, its heap and its anonymous mappings (RLIMIT_DATA of
    getrlimit(2), on Linux): that is near to what it really takes. Its address space (RLIMIT_AS) is three times that,
    since TensorFlow maps its libraries and reserves room for each thread.

    Attributes:
      seconds: to resolve, load, try and compile the module, all together.
      memory: bytes; None: what is free.
    """

    seconds: float = DEADLINE_SECONDS
    memory: int | None = None

    def bytes(self) -> int | None:
        """The limit of memory now; None if the system does not tell what is free."""
        if self.memory is not None:
            return self.memory
        free = available_memory()
        return None if free is None else max(_LEAST_BYTES, free - _SPARE_BYTES)
