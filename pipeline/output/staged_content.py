"""Staged files against what the records of their units tell of them: the size, and on a local disk the content."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor

from beamlabel.transforms import storage
from beamlabel.transforms.records import FileRecord
from beamlabel.transforms.storage.inside import below

# Of local files, whose reading is computing.
_THREADS = 4
_BLOCK_BYTES = 1 << 20


def changed(staging_dir: str, files: Iterable[FileRecord]) -> list[str]:
    """The names of the files that are there and are not what was staged; in the order given.

    Local ones are hashed, at 1 GB a second and core. What lies in a bucket would have to be fetched for that; of it the
    sizes are compared, by one request for 1,000 files.

    Args:
      staging_dir: of the run.
      files: as units have recorded them; their names were checked.

    Raises:
      OSError: the folder cannot be listed, or a file not be read.
    """
    files = list(files)
    if storage.is_local(staging_dir):
        with ThreadPoolExecutor(_THREADS) as threads:
            are_changed = threads.map(lambda file: is_changed(staging_dir, file), files)
            return [file.name for file, is_other in zip(files, are_changed, strict=True) if is_other]
    folders = sorted({file.name.partition("/")[0] for file in files})
    listed = [found for folder in folders for found in storage.match(_pattern(staging_dir, folder))]
    sizes = {found.path: found.size for found in listed if found.size is not None}
    return [file.name for file in files if sizes.get(below(staging_dir, file.name), file.bytes) != file.bytes]


def _pattern(staging_dir: str, folder: str) -> str:
    return storage.escape(storage.join(staging_dir, folder)) + "/"


def is_changed(staging_dir: str, file: FileRecord) -> bool:
    """The same of one local file."""
    digest, size = hashlib.sha256(), 0
    try:
        with open(below(staging_dir, file.name), "rb") as stream:  # noqa: PTH123 (a string is there)
            while block := stream.read(_BLOCK_BYTES):
                digest.update(block)
                size += len(block)
    except FileNotFoundError:  # it was moved, or is lacking, which whoever moves it tells
        return False
    return (size, digest.hexdigest()) != (file.bytes, file.sha256)
