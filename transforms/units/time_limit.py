"""The time after which a job begins no more units."""

from __future__ import annotations

import time
from dataclasses import dataclass

from beamlabel.transforms import storage


@dataclass(frozen=True)
class TimeLimit:
    """The time in which a job may begin units.

    Attributes:
      seconds: the length of that time.
      run_id: of its run.
      begun_at: the start, in seconds since 1970; None: the first request of a worker of the run, for a job that is
        started from a template at some later time.
    """

    seconds: float
    run_id: str
    begun_at: float | None = None

    def stop_at(self, staging_dir: str) -> float:
        """The end, in seconds since 1970; the same for all workers that share the staging directory."""
        if self.begun_at is not None:
            return self.begun_at + self.seconds
        path = storage.join(staging_dir, f"begun-{self.run_id}")
        storage.create_if_absent(path, repr(time.time()).encode())
        return float(storage.read_bytes(path)) + self.seconds
