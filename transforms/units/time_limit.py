"""When a job begins no more units."""

from __future__ import annotations

import time
from dataclasses import dataclass

from beamlabel.transforms import storage


@dataclass(frozen=True)
class TimeLimit:
    """How long a job may begin units.

    Attributes:
      seconds: that long.
      run_id: of the run that it is for.
      begun_at: since when, in seconds since 1970; None: since the first worker of the run asked, as for a job
        that is started from a template at some time.
    """

    seconds: float
    run_id: str
    begun_at: float | None = None

    def stop_at(self, staging_dir: str) -> float:
        """When it is over, in seconds since 1970; all workers that share the staging folder get the same answer."""
        if self.begun_at is not None:
            return self.begun_at + self.seconds
        path = storage.join(staging_dir, f"begun-{self.run_id}")
        storage.create_if_absent(path, repr(time.time()).encode())
        return float(storage.read_bytes(path)) + self.seconds
