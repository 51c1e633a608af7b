"""The lock of a local output: a file with a system lock, which ends with its process."""

from __future__ import annotations

import errno
import fcntl
import os
import stat
import uuid
from contextlib import suppress
from pathlib import Path

from beamlabel.pipeline import layout
from beamlabel.pipeline.output import staging
from beamlabel.pipeline.output.holder import Lock, OutputLockedError, at_work, describe, holder_of, is_lock
from beamlabel.pipeline.output.own_files import check_place, refuse
from beamlabel.pipeline.process.process_id import ProcessId

_READ_BYTES = 10_000
_HELD = (errno.EWOULDBLOCK, errno.EAGAIN, errno.EACCES)
_NO_LINKS = (errno.EPERM, errno.ENOTSUP, errno.ENOSYS)


class FileLock(Lock):
    """A lock file beside the output, which may not exist before it is published.

    The file is in the output if its parent directory cannot be written. An existing output directory is locked too: a
    bind mount, or another spelling on a case-insensitive file system, leads to the same directory, but not to the same
    file beside it.

    Args:
      output: absolute path, without links.

    Raises:
      OutputLockedError: another run holds it.
      UsageError: a file of another program is in its place.
      OSError: the lock cannot be written.
    """

    def __init__(self, output: str) -> None:
        parent = Path(output).parent
        is_beside = os.access(parent, os.W_OK) or not Path(output).is_dir()
        directory = Path(staging.beside(output) if is_beside else staging.inside(output))
        self._path = directory / layout.LOCK
        self._made = [place for place in self._path.parents if not os.path.lexists(place)]
        self._content = describe(ProcessId.own())
        self._directory: int | None = None
        try:
            self._file = self._take(output)
        except BaseException:
            self._remove_directories()
            raise
        try:
            self._directory = _lock_directory(output)
        except BaseException:
            self.release()
            raise

    def release(self) -> None:
        if self._directory is not None:
            # A child process may still hold a copy of the descriptor.
            fcntl.flock(self._directory, fcntl.LOCK_UN)
            os.close(self._directory)
        self._path.unlink(missing_ok=True)
        os.close(self._file)
        self._remove_directories()

    def _remove_directories(self) -> None:
        """Removes our own directory and those created for it, if they are empty."""
        for directory in dict.fromkeys([self._path.parent, *self._made]):
            with suppress(OSError):
                directory.rmdir()

    def _take(self, output: str) -> int:
        while True:
            check_place(str(self._path.parent), is_directory=True)
            # A run that releases the lock removes file and directory. In that case, start again.
            try:
                self._path.parent.mkdir(parents=True, exist_ok=True)
                file = self._create() if not os.path.lexists(self._path) else self._open(output)
            except FileNotFoundError:
                continue
            except FileExistsError as error:
                if os.path.lexists(error.filename) and not Path(error.filename).is_dir():
                    raise  # a parent is a file or a broken link
                continue
            if file is not None:
                return file

    def _create(self) -> int | None:
        """Creates the lock and holds it; None if another run was first. The file never exists without its content."""
        temporary = self._path.with_name(f".tmp-{uuid.uuid4().hex}")
        file = os.open(temporary, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o666)
        try:
            fcntl.flock(file, fcntl.LOCK_EX)
            os.write(file, self._content)
            try:
                os.link(temporary, self._path)
            except FileExistsError:
                os.close(file)
                return None
            except OSError as error:
                if error.errno not in _NO_LINKS:
                    raise
                os.close(file)
                return self._create_unlinked()
        except BaseException:
            with suppress(OSError):
                os.close(file)
            raise
        finally:
            temporary.unlink(missing_ok=True)
        return file

    def _create_unlinked(self) -> int | None:
        # For a file system without hard links. A process killed here leaves an empty file, which has no owner.
        try:
            file = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o666)
        except FileExistsError:
            return None
        fcntl.flock(file, fcntl.LOCK_EX)
        os.write(file, self._content)
        return file

    def _open(self, output: str) -> int | None:
        """Takes the existing lock; None if it was released meanwhile."""
        check_place(str(self._path), is_directory=False)
        file = os.open(self._path, os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK)
        try:
            if not stat.S_ISREG(os.fstat(file).st_mode) or not is_lock(os.pread(file, _READ_BYTES, 0)):
                refuse(str(self._path))
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                if error.errno not in _HELD:
                    raise
                holder = holder_of(os.pread(file, _READ_BYTES, 0))
                raise OutputLockedError(at_work(output, holder)) from None
            if os.fstat(file).st_nlink:
                os.pwrite(file, self._content, 0)
                os.ftruncate(file, len(self._content))
                return file
        except BaseException:
            os.close(file)
            raise
        os.close(file)
        return None


def _lock_directory(output: str) -> int | None:
    """A locked descriptor of the directory; None if it does not exist, or its file system has no such locks.

    Raises:
      OutputLockedError: another run holds it under another name.
    """
    try:
        directory = os.open(output, os.O_RDONLY | os.O_DIRECTORY)
    except OSError:  # missing or unreadable; the code that needs it reports that
        return None
    try:
        fcntl.flock(directory, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(directory)
        if error.errno not in _HELD:
            return None  # NFS cannot lock directories
        raise OutputLockedError(
            f"{output} is locked by another run under another name (a bind mount, or other letter case)"
        ) from None
    return directory
