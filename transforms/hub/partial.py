"""Creates files and directories of a cache atomically; the next call removes the leftovers of a killed process.

The name of an unfinished file begins with a dot and holds ``.beamlabel-``. Its process holds a lock (``flock``) on it,
which the system releases when the process ends for any reason. A process that gets the lock has found a leftover.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

try:
    import fcntl
except ImportError:  # not POSIX: no leftovers are recognized
    fcntl = None  # type: ignore[assignment]

_MARK = ".beamlabel-"


def fill_directory(directory: Path, fill: Callable[[Path], None]) -> None:
    """Creates ``directory`` atomically: ``fill`` writes into a temporary directory beside it, which is then renamed.

    If another process was faster, its directory stays.
    """
    with partial_directory(directory) as partial:
        fill(partial)
        partial.chmod(0o755)
        try:
            partial.rename(directory)
        except OSError:
            if not directory.is_dir():
                raise


@contextlib.contextmanager
def partial_directory(directory: Path) -> Iterator[Path]:
    """A temporary directory beside ``directory``, whose parent is created; deleted at the end, unless renamed."""
    directory.parent.mkdir(parents=True, exist_ok=True)
    remove_left_over(directory.parent, directory.name)
    with _locked(lambda: Path(tempfile.mkdtemp(prefix=_prefix(directory), dir=directory.parent))) as partial:
        try:
            yield partial
        finally:
            shutil.rmtree(partial, ignore_errors=True)


def write_file(path: Path, data: bytes) -> None:
    """Writes a file atomically; creates its directory."""
    path.parent.mkdir(parents=True, exist_ok=True)

    def make() -> Path:
        descriptor, name = tempfile.mkstemp(prefix=_prefix(path), dir=path.parent)
        os.close(descriptor)
        return Path(name)

    with _locked(make) as partial:
        try:
            partial.write_bytes(data)
            partial.chmod(0o644)
            partial.replace(path)
        except BaseException:
            partial.unlink(missing_ok=True)
            raise


def remove_left_over(directory: Path, name: str = "") -> None:
    """Removes unfinished files of killed processes from a directory, but none that a live process is writing.

    Args:
      directory: the directory; it may be absent.
      name: name of the file or directory that was being created; empty: all.
    """
    try:
        found = [entry for entry in os.scandir(directory) if _is_partial(entry.name, name)]
    except OSError:
        return
    for entry in found:
        with contextlib.suppress(OSError):
            descriptor = os.open(entry.path, os.O_RDONLY | os.O_NOFOLLOW)
            try:
                if not _lock(descriptor):
                    continue
                if entry.is_dir(follow_symlinks=False):
                    shutil.rmtree(entry.path, ignore_errors=True)
                else:
                    Path(entry.path).unlink(missing_ok=True)
            finally:
                os.close(descriptor)


def _prefix(path: Path) -> str:
    return f".{path.name}{_MARK}"


def _is_partial(entry: str, name: str) -> bool:
    return (
        entry.startswith(f".{name}") and _MARK in entry and (not name or entry.startswith(f".{name}{_MARK}"))
    )


@contextlib.contextmanager
def _locked(make: Callable[[], Path]) -> Iterator[Path]:
    """Yields a new file or directory, and holds its lock."""
    while True:
        partial = make()
        try:
            descriptor = os.open(partial, os.O_RDONLY)
        except FileNotFoundError:  # removed as a leftover before it was locked: try again
            continue
        has_lock = _lock(descriptor)
        if has_lock is None or (has_lock and partial.exists()):
            break
        os.close(descriptor)
    try:
        yield partial
    finally:
        os.close(descriptor)


def _lock(descriptor: int) -> bool | None:
    """Whether this process has the lock now; None if the system has no locks."""
    if fcntl is None:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return None
    return True
