"""Compares staged files with the records of their units: the size, and on a local disk the content."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor

from beamlabel.transforms import storage
from beamlabel.transforms.records import FileRecord
from beamlabel.transforms.storage.inside import below

# For local files, whose hashing is limited by the CPU.
_THREADS = 4
_BLOCK_BYTES = 1 << 20


def changed(staging_dir: str, files: Iterable[FileRecord]) -> list[str]:
    """The names of existing files that differ from the staged ones, in the given order.

    Local files are hashed, at 1 GB per second and core. Files in a bucket would have to be fetched for that, so only
    their sizes are compared, with one request for 1,000 files.

    Args:
      staging_dir: of the run.
      files: as units have recorded them, with checked names.

    Raises:
      OSError: the directory cannot be listed, or a file cannot be read.
    """
    files = list(files)
    if storage.is_local(staging_dir):
        with ThreadPoolExecutor(_THREADS) as threads:
            are_changed = threads.map(lambda file: is_changed(staging_dir, file), files)
            return [file.name for file, is_other in zip(files, are_changed, strict=True) if is_other]
    directories = sorted({file.name.partition("/")[0] for file in files})
    listed = [found for directory in directories for found in storage.match(_pattern(staging_dir, directory))]
    sizes = {found.path: found.size for found in listed if found.size is not None}
    return [file.name for file in files if sizes.get(below(staging_dir, file.name), file.bytes) != file.bytes]


def _pattern(staging_dir: str, directory: str) -> str:
    return storage.escape(storage.join(staging_dir, directory)) + "/"


def is_changed(staging_dir: str, file: FileRecord) -> bool:
    """Whether an existing local file differs from the staged one."""
    digest, size = hashlib.sha256(), 0
    try:
        with open(below(staging_dir, file.name), "rb") as stream:  # noqa: PTH123 (a string is there)
            while block := stream.read(_BLOCK_BYTES):
                digest.update(block)
                size += len(block)
    except FileNotFoundError:  # moved already, or missing, which the move reports
        return False
    return (size, digest.hexdigest()) != (file.bytes, file.sha256)
