"""The staging directories, which hold the files of a run until they are published.

They are in the output if it exists, or if directories cannot be renamed (``gs://``). A new local output is staged
beside its place instead, so that one rename publishes it, and nobody ever sees a part of it.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from beamlabel.pipeline import layout
from beamlabel.transforms import storage
from beamlabel.transforms.storage.uris import scheme


class StagedRun(NamedTuple):
    """The directory of a run, and the names of the files at its top level; shards and records are deeper."""

    directory: str
    files: frozenset[str]


def inside(output: str) -> str:
    """Our directory in an output."""
    return storage.join(output, layout.OWN)


def beside(output: str) -> str:
    """Our directory beside a local output, which may not exist."""
    return _beside(output, layout.OWN)


def own_directories(output: str) -> tuple[str, ...]:
    """All directories of ours that an output can have."""
    return (inside(output), beside(output)) if storage.is_local(output) else (inside(output),)


def earlier_names(output: str, name: str) -> tuple[str, ...]:
    """The paths of ``name`` in versions without a directory of their own."""
    there = storage.join(output, name)
    return (there, _beside(output, name)) if storage.is_local(output) else (there,)


def root(output: str) -> str:
    """The parent of the staging directory of a new run into ``output``, an absolute path."""
    is_new = storage.is_local(output) and not os.path.lexists(output)
    return storage.join(beside(output) if is_new else inside(output), layout.STAGING)


def roots(output: str) -> tuple[str, ...]:
    """All directories in which a run into ``output`` may have been staged."""
    return tuple(storage.join(directory, layout.STAGING) for directory in own_directories(output))


def is_beside(output: str, staging_dir: str) -> bool:
    """Whether a run is staged beside its output, which one rename then creates."""
    return not staging_dir.startswith(inside(output) + "/")


def runs(output: str) -> Iterator[StagedRun]:
    """The runs staged for an output; only the top level of their directories is listed."""
    for base in roots(output):
        for found in list(storage.entries(base)):
            if isinstance(found, storage.Directory):
                yield staged_run(found.path)


def staged_run(directory: str) -> StagedRun:
    """The staged run of a directory, with the files at its top level."""
    files = [found for found in storage.entries(directory) if isinstance(found, storage.StoredFile)]
    return StagedRun(directory, frozenset(file.path.rpartition("/")[2] for file in files))


def holding(output: str, name: str) -> Iterator[str]:
    """The directories of runs that hold a file called ``name``."""
    return (run.directory for run in runs(output) if name in run.files)


def delete_run(directory: str) -> None:
    """Deletes the staged files of a run.

    The commit and the unit records are deleted first, so that after an interruption none of them names a deleted file.
    ``publish.json``, which shows that the run is published, and ``job.json``, which marks the directory as ours, are
    deleted last, because the next run needs them to know which files it may delete.
    """
    storage.delete(storage.join(directory, layout.COMMIT))
    units = storage.join(directory, layout.UNIT_RECORDS)
    last = [storage.join(directory, name) for name in (layout.MOVES, layout.JOB)]
    paths = [file.path for file in storage.match(storage.escape(directory) + "/")]
    storage.delete_all(path for path in paths if path.startswith(units + "/"))
    storage.delete_all(path for path in paths if path not in last and not path.startswith(units + "/"))
    for path in last:
        storage.delete(path)
    if not is_bucket(directory):
        storage.delete_tree(directory)


def delete_all(output: str) -> None:
    """Deletes the staged files of all runs into ``output``, which ``check_own_files`` must have checked."""
    for run in list(runs(output)):
        delete_run(run.directory)
    remove_if_empty(output)


def is_bucket(directory: str) -> bool:
    """Whether directories are only common prefixes of object names, so that empty ones do not exist."""
    return scheme(directory) in ("gs", "s3")


def remove_if_empty(output: str) -> None:
    """Removes our directories if they are empty."""
    if is_bucket(output):
        return
    for directory in own_directories(output):
        staged = storage.join(directory, layout.STAGING)
        if storage.is_local(directory):
            for part in (staged, directory):
                storage.delete_temporary(part)
            # Only empty directories, because a worker may write there meanwhile.
            for empty, _, _ in os.walk(directory, topdown=False):
                with suppress(OSError):
                    Path(empty).rmdir()
            continue
        for part in (staged, directory):
            if next(storage.match(storage.escape(part) + "/"), None) is None:
                storage.delete_tree(part)


def _beside(output: str, name: str) -> str:
    # The hash replaces the output's name, because Spark takes `_dt=2026-01-01` for a partition despite the underscore.
    parent, _, last = output.rpartition("/")
    digest = hashlib.sha256(last.encode("utf-8", "surrogateescape")).hexdigest()
    return f"{parent}/{name}-{digest[:12]}"
