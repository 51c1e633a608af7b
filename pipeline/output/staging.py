"""Where the files of a run lie until they are published.

In the output where that exists, or where there is no renaming of folders (``gs://``). A new local output is
staged beside its place instead, so that publishing it is one rename, and nobody ever sees a part of it.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

from beamlabel.pipeline import layout
from beamlabel.transforms import storage

_THREADS = 16


def root(output: str) -> str:
    """The folder in which a new run into ``output``, an absolute path, has its own folder."""
    if storage.is_local(output) and not os.path.lexists(output):
        return _beside(output)
    return storage.join(output, layout.STAGING)


def roots(output: str) -> tuple[str, ...]:
    """All folders in which a run into ``output`` may have been staged."""
    inside = storage.join(output, layout.STAGING)
    return (inside, _beside(output)) if storage.is_local(output) else (inside,)


def is_beside(output: str, staging_dir: str) -> bool:
    """Whether a run is staged beside its output, which is then made by one rename."""
    return not staging_dir.startswith(storage.join(output, layout.STAGING) + "/")


def holding(output: str, name: str) -> Iterator[str]:
    """The folders of runs that hold a file called ``name``."""
    for folder in roots(output):
        for found in list(storage.match(storage.join(storage.escape(folder), "*", name))):
            yield found.path.rpartition("/")[0]


def delete_run(folder: str) -> None:
    """Deletes what a run has staged.

    Whenever that is cut short, nothing is left that says it is done while what it says is gone: no commit, and no
    record of a unit. What tells that the run is published goes last: by it, and only by it, the next run knows that
    the rest may go.
    """
    storage.delete(storage.join(folder, layout.COMMIT))
    storage.delete_tree(storage.join(folder, layout.UNIT_RECORDS))
    moves = storage.join(folder, layout.MOVES)
    if storage.exists(moves):
        paths = [file.path for file in storage.match(storage.escape(folder) + "/") if file.path != moves]
        with ThreadPoolExecutor(_THREADS) as threads:
            list(threads.map(storage.delete, paths))
        storage.delete(moves)
    storage.delete_tree(folder)


def delete_all(output: str) -> None:
    """Deletes what all runs into ``output`` have staged."""
    for base in roots(output):
        paths = [file.path for file in storage.match(storage.escape(base) + "/")]
        for name in sorted({path[len(base) + 1 :].partition("/")[0] for path in paths}):
            delete_run(storage.join(base, name))
        storage.delete_tree(base)


def remove_if_empty(output: str) -> None:
    """Removes the folders of runs where there is no run any more."""
    for folder in roots(output):
        if next(storage.match(storage.escape(folder) + "/"), None) is None:
            storage.delete_tree(folder)


def _beside(output: str) -> str:
    # Not the output's name: Spark takes `_dt=2026-01-01` for a partition in spite of its first character.
    parent, _, name = output.rpartition("/")
    digest = hashlib.sha256(name.encode("utf-8", "surrogateescape")).hexdigest()
    return f"{parent}/{layout.STAGING}-{digest[:12]}"
