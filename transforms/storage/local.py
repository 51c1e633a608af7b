"""Files of the local file system. Every function takes plain paths; see ``beamlabel.transforms.storage``."""

from __future__ import annotations

import errno
import io
import os
import shutil
import stat as stat_module
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO, cast

from beamlabel.transforms.storage.disk.regular_file import check_regular, is_of_kernel, open_regular
from beamlabel.transforms.storage.errors import NotAFileError, ReplacedError
from beamlabel.transforms.storage.listing.stored_file import StoredFile
from beamlabel.transforms.storage.patterns import Directory, has_glob, matcher, split_glob

_TEMPORARY = ".tmp-"
# Error numbers of fsync on file systems without support for it.
_CANNOT_SYNC = (errno.EINVAL, errno.ENOTSUP, errno.ENOSYS)
# Identifies a directory regardless of links to it: device and inode.
_Identity = tuple[int, int]


def is_directory(path: str) -> bool:
    """Whether ``path`` is a directory, or a link to one."""
    try:
        return stat_module.S_ISDIR(_status(path).st_mode)
    except FileNotFoundError:
        return False


def stat(path: str) -> StoredFile:
    """The file at ``path``."""
    status = _status(path)
    check_regular(path, status)
    return StoredFile(path, status.st_size, str(status.st_mtime_ns))


def _status(path: str) -> os.stat_result:
    try:
        return Path(path).stat()
    except (OSError, ValueError) as error:
        # Names that no file can have: with a NUL, too long, below a file.
        if isinstance(error, OSError) and error.errno not in (errno.ENOTDIR, errno.ENAMETOOLONG):
            raise
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), path) from error


def below(directory: str) -> Iterator[StoredFile]:
    """All files below ``directory``, which ends in ``/``."""
    if _is_listed(directory):
        yield from _walk(directory, (_identity(directory),))


def glob(pattern: str) -> Iterator[StoredFile]:
    """The files that match; skips directories that cannot match."""
    start, rest = split_glob(pattern)
    if _is_listed(start or "."):
        yield from _glob(start, rest)


def _is_listed(directory: str) -> bool:
    """Whether ``directory`` is a directory.

    Raises:
      NotAFileError: The directory belongs to the kernel.
    """
    if not is_directory(directory):
        return False
    if is_of_kernel(Path(directory).stat().st_dev):
        raise NotAFileError(
            errno.EINVAL, "a virtual directory of the kernel, which holds no files", directory
        )
    return True


def _glob(directory: str, pattern: str) -> Iterator[StoredFile]:
    """``directory`` is ``""`` or ends in ``/``; ``pattern`` is relative to it."""
    first, slash, rest = pattern.partition("/")
    if "**" in first:
        matches = matcher(pattern)
        for file in _walk(directory, (_identity(directory or "."),)):
            if matches(file.path[len(directory) :]):
                yield file
    elif not slash:
        matches = matcher(first)
        files = (_stored(directory, entry) for entry in _entries(directory) if matches(entry.name))
        yield from filter(None, files)
    elif not has_glob(first):
        if is_directory(directory + first):
            yield from _glob(f"{directory}{first}/", rest)
    else:
        matches = matcher(first)
        for entry in _entries(directory):
            if matches(entry.name) and _leads_to_directory(entry):
                yield from _glob(f"{directory}{entry.name}/", rest)


def _walk(directory: str, above: tuple[_Identity, ...]) -> Iterator[StoredFile]:
    """Lists a tree; ``above``: the directories on the way here, with this one, since a link back to one is a loop."""
    for entry in _entries(directory):
        if not _leads_to_directory(entry):
            file = _stored(directory, entry)
            if file is not None:
                yield file
            continue
        identity = _identity(entry.path)
        if identity not in above:
            yield from _walk(f"{directory}{entry.name}/", (*above, identity))


def _entries(directory: str) -> list[os.DirEntry[str]]:
    """The entries of a directory, in an object store's order."""
    with os.scandir(directory or ".") as entries:
        listing = list(entries)
    return sorted(listing, key=lambda entry: entry.name + "/" if _leads_to_directory(entry) else entry.name)


def _leads_to_directory(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError as error:
        if error.errno != errno.ELOOP:
            raise
        return False


def _stored(directory: str, entry: os.DirEntry[str]) -> StoredFile | None:
    """The file; None for a directory, a pipe, and so on."""
    path = directory + entry.name
    try:
        status = entry.stat()
    except OSError as error:
        if error.errno not in (errno.ENOENT, errno.ELOOP):
            raise
        # A dangling link is input too: a failed read is better than silence.
        return StoredFile(path, None, None)
    if not stat_module.S_ISREG(status.st_mode) or is_of_kernel(status.st_dev):
        return None
    return StoredFile(path, status.st_size, str(status.st_mtime_ns))


def _identity(directory: str) -> _Identity:
    status = Path(directory).stat()
    return status.st_dev, status.st_ino


def entries(directory: str) -> Iterator[StoredFile | Directory]:
    """The direct entries of ``directory``, which ends in ``/``; links to directories count as directories."""
    if not is_directory(directory):
        return
    for entry in _entries(directory):
        found = Directory(entry.path) if _leads_to_directory(entry) else _stored(directory, entry)
        if found is not None:
            yield found


def open_input(path: str, known: StoredFile | None = None) -> BinaryIO:
    """The file, open for reading."""
    if known is None:
        stat(path)
    return open_regular(path)


def read_bytes(path: str) -> bytes:
    """The whole file."""
    with open_input(path) as file:
        return file.read()


def read_part(path: str, start: int, size: int, version: str | None) -> bytes:
    """A range of the file."""
    with open_regular(path) as buffered:
        file = cast("io.FileIO", buffered.raw)  # unbuffered, so that no more is read than requested
        if version is not None and str(os.fstat(file.fileno()).st_mtime_ns) != version:
            raise ReplacedError(errno.ENOENT, "the file was replaced", path)
        file.seek(start)
        data = b""
        while len(data) < size and (more := file.read(size - len(data))):
            data += more
        return data


def get_file(path: str, local_path: Path) -> None:
    """Copies the file to another local file."""
    with open_input(path) as source, local_path.open("wb") as file:
        shutil.copyfileobj(source, file, 1 << 20)


def make_directory(directory: Path) -> None:
    """Creates a directory and its parents, and flushes them to disk."""
    missing = []
    place = directory
    while not os.path.lexists(place):
        missing.append(place)
        place = place.parent
    directory.mkdir(parents=True, exist_ok=True)
    for made in reversed(missing):
        sync_directory(made.parent)


def sync_directory(directory: Path) -> None:
    """Flushes the names in a directory to disk, so that new, renamed and linked files survive a power cut.

    Linux needs that in addition to the ``fsync`` of the file, see fsync(2). File systems without support are ignored.
    """
    try:
        opened = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    except PermissionError:  # the directory is writable, but not readable
        return
    try:
        _sync(opened)
    finally:
        os.close(opened)


def sync_tree(directory: Path) -> None:
    """Flushes a directory with all files and directories below it to disk."""
    for path in directory.rglob("*"):
        if path.is_file():
            _sync_file(path)
        elif path.is_dir():
            sync_directory(path)
    sync_directory(directory)


def _sync_file(path: Path) -> None:
    opened = os.open(path, os.O_RDONLY)
    try:
        _sync(opened)
    finally:
        os.close(opened)


def _sync(file: int) -> None:
    try:
        os.fsync(file)
    except OSError as error:
        if error.errno not in _CANNOT_SYNC:
            raise


def _write_synced(path: Path, data: bytes) -> None:
    with path.open("wb") as file:
        file.write(data)
        file.flush()
        _sync(file.fileno())


def _replace(temporary: Path, path: str) -> None:
    temporary.replace(path)
    sync_directory(Path(path).parent)


@contextmanager
def _new_file(path: str) -> Iterator[Path]:
    """Yields a temporary path in the directory of ``path``, which is created; removes the temporary file afterwards.

    Errors of the temporary file name ``path``, the file to write.
    """
    target = Path(path)
    make_directory(target.parent)
    temporary = target.parent / f"{_TEMPORARY}{uuid.uuid4().hex}"
    try:
        yield temporary
    except OSError as error:
        if error.filename != str(temporary):
            raise
        raise OSError(error.errno, error.strerror, path) from error
    finally:
        temporary.unlink(missing_ok=True)


def write_bytes(path: str, data: bytes) -> None:
    """Replaces the file by a rename: readers see the old file or the new one, even after a power cut."""
    with _new_file(path) as temporary:
        _write_synced(temporary, data)
        _replace(temporary, path)


def create_if_absent(path: str, data: bytes) -> bool:
    """Writes a temporary file and links it to ``path``: one of several writers wins, and no reader sees half a file."""
    with _new_file(path) as temporary:
        _write_synced(temporary, data)
        try:
            Path(path).hardlink_to(temporary)
            sync_directory(Path(path).parent)
        except FileExistsError:
            # The file's creator may not have synced it yet, but this process relies on it from now on.
            sync_directory(Path(path).parent)
            return _is_link_to(temporary, path)
        except OSError as error:
            if error.errno not in (errno.EPERM, errno.ENOTSUP, errno.ENOSYS):
                raise
            return _create_unlinked(path, data)
    return True


def _is_link_to(temporary: Path, path: str) -> bool:
    # After a lost answer NFS repeats the request, and then finds its own link: see link(2).
    try:
        return os.path.samestat(temporary.stat(), Path(path).lstat())
    except FileNotFoundError:
        return False


def _create_unlinked(path: str, data: bytes) -> bool:
    # Without hard links one writer still wins, but a reader may see a half-written file.
    try:
        with Path(path).open("xb") as file:
            file.write(data)
            file.flush()
            _sync(file.fileno())
    except FileExistsError:
        return False
    sync_directory(Path(path).parent)
    return True


def put_file(local_path: str, path: str) -> None:
    """Renames the file, or copies it from another file system beside ``path`` and renames it; flushes it to disk."""
    _sync_file(Path(local_path))
    _rename(local_path, path)
    sync_directory(Path(path).parent)


def _rename(source: str, target: str) -> None:
    make_directory(Path(target).parent)
    try:
        Path(source).replace(target)
    except OSError as error:
        if error.errno != errno.EXDEV:
            raise
        with _new_file(target) as temporary:
            shutil.copyfile(source, temporary)
            _sync_file(temporary)
            temporary.replace(target)
        Path(source).unlink(missing_ok=True)


def copy(source: str, target: str) -> None:
    """Copies the file beside ``target`` and renames it; a hard link replaces the copy if the file system has them."""
    with _new_file(target) as temporary:
        try:
            temporary.hardlink_to(source)
        except OSError as error:
            if error.errno not in (errno.EPERM, errno.ENOTSUP, errno.ENOSYS, errno.EXDEV, errno.EMLINK):
                raise
            shutil.copyfile(source, temporary)
        _sync_file(temporary)
        _replace(temporary, target)


def move_directory(source: str, target: str) -> None:
    """Renames a directory atomically to a path that does not exist."""
    if os.path.lexists(target):
        raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), target)
    Path(source).rename(target)
    sync_directory(Path(target).parent)


def move(source: str, target: str) -> None:
    """Renames the file; does nothing if only ``target`` exists. One ``sync_directory`` flushes many renames."""
    try:
        stat(source)
        _rename(source, target)
    except FileNotFoundError:
        with suppress(FileNotFoundError):
            stat(target)
            return
        raise


def delete(path: str) -> None:
    """Removes the file."""
    with suppress(FileNotFoundError, NotADirectoryError):
        Path(path).unlink()


def delete_temporary(directory: str) -> None:
    """Removes the temporary files in a directory."""
    for path in Path(directory).glob(f"{_TEMPORARY}{'[0-9a-f]' * 32}"):
        path.unlink(missing_ok=True)


def delete_tree(path: str) -> None:
    """Removes the directory, also while others remove it."""
    directory = Path(path)
    if directory.resolve() == Path(directory.resolve().anchor):
        raise ValueError(f"refusing to delete a whole file system: {path!r}")
    while is_directory(path):
        with suppress(FileNotFoundError):
            shutil.rmtree(directory)
