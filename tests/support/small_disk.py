"""A file system of a few megabytes, to be filled: what ENOSPC is like, from the kernel."""

from __future__ import annotations

import subprocess
from contextlib import suppress
from pathlib import Path

_FILLING = "filling"


class SmallDisk:
    """A tmpfs, mounted from construction to ``close``.

    Args:
      folder: where; made.
      size: as ``mount`` takes it.

    Raises:
      OSError: this user may not mount it, or there is no such program.
    """

    def __init__(self, folder: Path, size: str) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        command = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise OSError(f"no tmpfs can be mounted: {done.stderr}")

    def fill(self) -> None:
        """Takes all room that there is, in a file that no run knows."""
        with self._filling().open("wb", buffering=0) as file, suppress(OSError):
            while True:
                file.write(bytes(1 << 12))

    def empty(self) -> None:
        """Gives it back."""
        self._filling().unlink(missing_ok=True)

    def _filling(self) -> Path:
        return self.folder / _FILLING

    def close(self) -> None:
        # Lazily: a process that has not ended yet may have something open there.
        subprocess.run(["umount", "--lazy", str(self.folder)], check=True)

    def __enter__(self) -> SmallDisk:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
