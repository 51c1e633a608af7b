"""Copies a module to another directory, so that an incomplete copy is never taken for a module."""

from __future__ import annotations

import hashlib
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from beamlabel.transforms import storage
from beamlabel.transforms.hub.files import SAVED_MODEL, FileEntry, is_beside, scan
from beamlabel.transforms.hub.partial import fill_directory
from beamlabel.transforms.inference.artifact import ModuleError

_BLOCK_BYTES = 1 << 20


def mirror_module(module: Path, directory: str) -> bool:
    """Copies a module's files into a directory, and reads them back.

    A local directory appears at once, by a rename. In a bucket, ``saved_model.pb`` is written last, after all other
    files were read back and compared: without it a directory is not a module. The next call completes an interrupted
    copy.

    Args:
      module: a directory with ``saved_model.pb``, or a ``.keras`` file, which becomes ``model.keras``.
      directory: a local directory, or one on a storage that ``beamlabel.transforms.storage`` writes.

    Returns:
      False if the directory already held exactly this module.

    Raises:
      ModuleError: the directory holds something else, or lies within the module.
      OSError: the directory cannot be written, or reading it back gives other content.
      ValueError: the storage is not supported.
    """
    directory = storage.absolute(directory).rstrip("/")
    wanted = scan(module)
    found = _entries(directory)
    if found == wanted:
        return False
    local = storage.is_local(directory)
    if local and Path(directory).resolve().is_relative_to(module.resolve()):
        raise ModuleError(f"{directory} lies within the module itself")
    if other := [entry.path for entry in found if local or entry not in wanted]:
        raise ModuleError(
            f"{directory} exists and holds something else ({other[0]}); name another directory, or delete it"
        )
    if local:
        fill_directory(Path(directory), lambda partial: _copy_files(module, wanted, partial))
    else:
        _upload(module, [entry for entry in wanted if entry not in found], directory)
    if _entries(directory) != wanted:
        raise OSError(f"{directory} does not hold the bytes that were written into it")
    return True


def _copy_files(module: Path, wanted: tuple[FileEntry, ...], directory: Path) -> None:
    for entry in wanted:
        target = directory / entry.path
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(_source(module, entry), target)
    if scan(directory) != wanted:
        raise OSError(f"{directory} does not hold the bytes that were written into it")


def _upload(module: Path, missing: list[FileEntry], directory: str) -> None:
    with tempfile.TemporaryDirectory(prefix="beamlabel-") as scratch:
        for entry in sorted(missing, key=lambda entry: entry.path == SAVED_MODEL):
            # `put_file` streams, and removes its source.
            copy = Path(scratch) / "file"
            shutil.copyfile(_source(module, entry), copy)
            target = storage.join(directory, entry.path)
            storage.put_file(str(copy), target)
            if _entry(entry.path, target) != entry:
                storage.delete(target)
                raise OSError(f"{target} does not hold the bytes that were written into it")


def _source(module: Path, entry: FileEntry) -> Path:
    return module if module.is_file() else module / entry.path


def _entries(directory: str) -> tuple[FileEntry, ...]:
    """All files below a directory, as ``scan`` gives them."""
    if storage.is_local(directory):
        path = Path(directory)
        if path.exists() and not path.is_dir():
            raise ModuleError(f"{directory} is a file, not a directory")
        return scan(path) if path.is_dir() else ()
    return tuple(sorted(_remote_entries(directory + "/")))


def _remote_entries(prefix: str) -> Iterator[FileEntry]:
    for file in storage.match(prefix):
        if not is_beside(file.path[len(prefix) :]):
            yield _entry(file.path[len(prefix) :], file.path)


def _entry(name: str, path: str) -> FileEntry:
    digest, size = hashlib.sha256(), 0
    with storage.open_input(path) as stream:
        while block := stream.read(_BLOCK_BYTES):
            digest.update(block)
            size += len(block)
    return FileEntry(name, size, digest.hexdigest())
