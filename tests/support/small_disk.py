"""A file system of a few megabytes that tests fill, so that the kernel raises ENOSPC."""

from __future__ import annotations

import subprocess
from contextlib import suppress
from pathlib import Path

_FILLING = "filling"


class SmallDisk:
    """A tmpfs that is mounted from construction to ``close``.

    Args:
      directory: The mount point, which is created.
      size: The size in the syntax of ``mount``.

    Raises:
      OSError: This user may not mount it, or ``mount`` is missing.
    """

    def __init__(self, directory: Path, size: str) -> None:
        self.directory = directory
        directory.mkdir(parents=True, exist_ok=True)
        command = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(directory)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise OSError(f"no tmpfs can be mounted: {done.stderr}")

    def fill(self) -> None:
        """Fills the disk with a file that belongs to no run."""
        with self._filling().open("wb", buffering=0) as file, suppress(OSError):
            while True:
                file.write(bytes(1 << 12))

    def empty(self) -> None:
        """Deletes the filling file."""
        self._filling().unlink(missing_ok=True)

    def _filling(self) -> Path:
        return self.directory / _FILLING

    def close(self) -> None:
        # Lazily, since a process that has not ended yet may have files open there.
        subprocess.run(["umount", "--lazy", str(self.directory)], check=True)

    def __enter__(self) -> SmallDisk:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
