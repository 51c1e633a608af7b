"""Where the files of a run lie until they are published.

In the output where that exists, or where there is no renaming of folders (``gs://``). A new local output is
staged beside its place instead, so that publishing it is one rename, and nobody ever sees a part of it.
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
    """The folder of a run, and the names of the files right in it: shards and records lie further below."""

    folder: str
    files: frozenset[str]


def inside(output: str) -> str:
    """The folder of ours in an output."""
    return storage.join(output, layout.OWN)


def beside(output: str) -> str:
    """The folder of ours beside a local output, which may not exist."""
    return _beside(output, layout.OWN)


def own_folders(output: str) -> tuple[str, ...]:
    """The folders of ours that there may be for an output."""
    return (inside(output), beside(output)) if storage.is_local(output) else (inside(output),)


def earlier_names(output: str, name: str) -> tuple[str, ...]:
    """What was called ``name`` by versions that had no folder of their own."""
    there = storage.join(output, name)
    return (there, _beside(output, name)) if storage.is_local(output) else (there,)


def root(output: str) -> str:
    """The folder in which a new run into ``output``, an absolute path, has its own folder."""
    is_new = storage.is_local(output) and not os.path.lexists(output)
    return storage.join(beside(output) if is_new else inside(output), layout.STAGING)


def roots(output: str) -> tuple[str, ...]:
    """All folders in which a run into ``output`` may have been staged."""
    return tuple(storage.join(folder, layout.STAGING) for folder in own_folders(output))


def is_beside(output: str, staging_dir: str) -> bool:
    """Whether a run is staged beside its output, which is then made by one rename."""
    return not staging_dir.startswith(inside(output) + "/")


def runs(output: str) -> Iterator[StagedRun]:
    """The folders of runs into an output; what the runs have staged is not looked through."""
    for base in roots(output):
        for found in list(storage.entries(base)):
            if isinstance(found, storage.Folder):
                yield staged_run(found.path)


def staged_run(folder: str) -> StagedRun:
    """What lies right in the folder of a run."""
    files = [found for found in storage.entries(folder) if isinstance(found, storage.StoredFile)]
    return StagedRun(folder, frozenset(file.path.rpartition("/")[2] for file in files))


def holding(output: str, name: str) -> Iterator[str]:
    """The folders of runs that hold a file called ``name``."""
    return (run.folder for run in runs(output) if name in run.files)


def delete_run(folder: str) -> None:
    """Deletes what a run has staged.

    Whenever that is cut short, nothing is left that says it is done while what it says is gone: no commit, and no
    record of a unit. What tells that the run is published goes after the rest, and what tells that all of it is ours
    goes last: by these, and only by these, the next run knows what may go.
    """
    storage.delete(storage.join(folder, layout.COMMIT))
    units = storage.join(folder, layout.UNIT_RECORDS)
    last = [storage.join(folder, name) for name in (layout.MOVES, layout.JOB)]
    paths = [file.path for file in storage.match(storage.escape(folder) + "/")]
    storage.delete_all(path for path in paths if path.startswith(units + "/"))
    storage.delete_all(path for path in paths if path not in last and not path.startswith(units + "/"))
    for path in last:
        storage.delete(path)
    if not is_bucket(folder):
        storage.delete_tree(folder)


def delete_all(output: str) -> None:
    """Deletes what all runs into ``output`` have staged; ``check_own_files`` has looked at it before."""
    for run in list(runs(output)):
        delete_run(run.folder)
    remove_if_empty(output)


def is_bucket(folder: str) -> bool:
    """Whether a folder is no more than what names of objects have in common, so that an empty one is none."""
    return scheme(folder) in ("gs", "s3")


def remove_if_empty(output: str) -> None:
    """Removes our folders where nothing is in them any more."""
    if is_bucket(output):
        return
    for folder in own_folders(output):
        staged = storage.join(folder, layout.STAGING)
        if storage.is_local(folder):
            for part in (staged, folder):
                storage.delete_temporary(part)
            # Never more than empty folders: a worker may write there meanwhile.
            for empty, _, _ in os.walk(folder, topdown=False):
                with suppress(OSError):
                    Path(empty).rmdir()
            continue
        for part in (staged, folder):
            if next(storage.match(storage.escape(part) + "/"), None) is None:
                storage.delete_tree(part)


def _beside(output: str, name: str) -> str:
    # Not the output's name: Spark takes `_dt=2026-01-01` for a partition in spite of its first character.
    parent, _, last = output.rpartition("/")
    digest = hashlib.sha256(last.encode("utf-8", "surrogateescape")).hexdigest()
    return f"{parent}/{name}-{digest[:12]}"
