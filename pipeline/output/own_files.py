"""Recognizes our own files by their content. A run deletes no others, and refuses to start if it finds others.

A plan's directory is ours if it has our ``job.json``, which is written first and deleted last. Workers of an abandoned
run may still write into a deleted directory. So a directory without ``job.json`` is ours if it holds only files of
workers, whose names consist of units and hashes of the content.
"""

from __future__ import annotations

import os
import re
import stat
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

from beamlabel.pipeline import layout
from beamlabel.pipeline.errors import UsageError
from beamlabel.pipeline.output import staging
from beamlabel.pipeline.output.staging import StagedRun
from beamlabel.transforms import storage
from beamlabel.transforms.shapes import OBJECT, ShapeError, parse

_UNIT = r"\d{5,}-\d{12,}(-[0-9a-f]{8})?"
_BY_WORKERS = re.compile(
    rf"(shards|failures|unchanged|summaries)/{_UNIT}-[0-9a-f]{{16}}\.[a-z0-9.]+|units/{_UNIT}\.json"
    rf"|(references|seen)/{_UNIT}|timeouts/{_UNIT}\.\d+\.json|deleted/\d{{5,}}-[0-9a-f]{{16}}\.parquet"
    r"|progress/[^/]+-\d+-[0-9a-f]{8}\.json|tmp-[a-z0-9_]{8}/(file|rows)|begun-\d{8}T\d{6}Z-[0-9a-f]{6}"
)
# Files that a killed storage.write_bytes leaves on a local disk.
_TEMPORARY = re.compile(r"\.tmp-[0-9a-f]{32}")


class _Entry(NamedTuple):
    """A file or, on a local disk, a directory."""

    path: str
    name: str
    """Relative to our directory."""
    is_directory: bool = False


def check_own_files(output: str) -> list[StagedRun]:
    """Checks our directories of an output before anything in them is changed.

    In a bucket, only the top level of these directories and of the runs' directories is listed. The staged files of a
    run are listed only if nothing else identifies their owner.

    Returns:
      The runs that have staged files.

    Raises:
      UsageError: a file there is not ours, or was left by a version whose files had other names.
      OSError: a directory cannot be listed.
    """
    runs = [run for directory in staging.own_directories(output) for run in _check_directory(directory)]
    _check_earlier(output)
    return runs


def check_place(path: str, *, is_directory: bool) -> None:
    """Refuses a link, a pipe, a directory in place of a file, or a file in place of a directory, on a local disk.

    Raises:
      UsageError: the path has another kind than expected.
    """
    if not storage.is_local(path):
        return
    try:
        mode = Path(path).lstat().st_mode
    except (FileNotFoundError, NotADirectoryError):
        return
    if not (stat.S_ISDIR(mode) if is_directory else stat.S_ISREG(mode)):
        refuse(path)


def refuse(path: str) -> NoReturn:
    """Raises ``UsageError`` for a foreign file in a place of ours."""
    raise UsageError(
        f"{path} is not beamlabel's, but is where beamlabel keeps its own files. Nothing was changed. Move it away, or "
        "use another --output"
    )


def is_marked(data: bytes, mark: str) -> bool:
    """Whether the content of a file has our mark."""
    content = _json_object(data)
    return content is not None and content.get("format") == mark


def _json_object(data: bytes) -> dict[str, Any] | None:
    try:
        return dict(parse(data, OBJECT))
    except ShapeError:
        return None


def _check_directory(directory: str) -> list[StagedRun]:
    check_place(directory, is_directory=True)
    if not storage.is_local(directory):
        return _check_listed(directory)
    plans: dict[str, list[_Entry]] = defaultdict(list)
    for entry in _local_entries(directory, ""):
        parts = entry.name.split("/")
        if parts[0] == layout.STAGING and (entry.is_directory or len(parts) > 2):
            if len(parts) > 1:
                plans[parts[1]].append(entry)
        elif entry.is_directory or len(parts) > 2 or not _is_own_file(directory, entry.path, parts):
            refuse(entry.path)
    runs = []
    for plan, entries in plans.items():
        place = storage.join(directory, layout.STAGING, plan)
        names = {entry.path[len(place) + 1 :] for entry in entries if not entry.is_directory}
        runs.append(StagedRun(place, frozenset(name for name in names if "/" not in name)))
        _check_plan(runs[-1], entries)
    return runs


def _check_listed(directory: str) -> list[StagedRun]:
    """Checks a remote directory, which is listed one level at a time."""
    runs = []
    for found in storage.entries(directory):
        name = found.path[len(directory) + 1 :]
        if isinstance(found, storage.StoredFile):
            if not _is_own_file(directory, found.path, [name]):
                refuse(found.path)
            continue
        for below in storage.entries(found.path) if name == layout.STAGING else _some(found.path):
            if isinstance(below, storage.Directory):
                runs.append(staging.staged_run(below.path))
            elif name != layout.STAGING or not _is_own_file(directory, below.path, [name, ""]):
                refuse(below.path)
    for run in runs:
        there = storage.match(storage.escape(run.directory) + "/")
        _check_plan(run, (_Entry(file.path, file.path[len(directory) + 1 :]) for file in there))
    return runs


def _some(directory: str) -> Iterator[storage.StoredFile]:
    """One file of the directory, if it has any."""
    return islice(storage.match(storage.escape(directory) + "/"), 1)


def _is_own_file(directory: str, path: str, parts: Sequence[str]) -> bool:
    """Whether a file at the top level of our directory, or of that for runs, is ours."""
    if _TEMPORARY.fullmatch(path.rpartition("/")[2]):
        return True
    if parts == [layout.LOCK]:
        # In a bucket it was checked when it was taken. On a local disk there may be two places.
        return not storage.is_local(directory) or _has_mark(path, layout.LOCK_FORMAT)
    return parts == [layout.UNITS] and _has_mark(path, layout.UNITS_FORMAT)


def _check_plan(run: StagedRun, entries: Iterable[_Entry]) -> None:
    directory = run.directory
    if layout.JOB in run.files:
        job = storage.join(directory, layout.JOB)
        if not _has_mark(job, layout.JOB_FORMAT):
            refuse(job)
        return
    prefix = len(directory) + 1
    for entry in entries:
        name = entry.path[prefix:]
        is_commit = name == layout.COMMIT and _has_mark(entry.path, layout.COMMIT_FORMAT)
        is_ours = _BY_WORKERS.fullmatch(name) or _TEMPORARY.fullmatch(name.rpartition("/")[2]) or is_commit
        if not entry.is_directory and not is_ours:
            refuse(directory)


def _local_entries(directory: str, prefix: str) -> Iterator[_Entry]:
    """Lists recursively without following links. A worker that is still active may delete listed files."""
    entries: list[os.DirEntry[str]] = []
    with suppress(FileNotFoundError), os.scandir(directory) as listing:
        entries = sorted(listing, key=lambda entry: entry.name)
    for entry in entries:
        is_directory = entry.is_dir(follow_symlinks=False)
        if not is_directory:
            check_place(entry.path, is_directory=False)
        yield _Entry(entry.path, prefix + entry.name, is_directory)
        if is_directory:
            yield from _local_entries(entry.path, f"{prefix}{entry.name}/")


def _has_mark(path: str, mark: str) -> bool:
    try:
        return is_marked(storage.read_bytes(path), mark)
    except FileNotFoundError:  # deleted meanwhile
        return True


def _check_earlier(output: str) -> None:
    """Refuses unfinished or active runs of an earlier version, which this version cannot finish and must not delete."""
    for root in staging.earlier_names(output, layout.EARLIER_STAGING):
        for found in storage.entries(root):
            if isinstance(found, storage.Directory):
                _check_earlier_run(found.path)
    for path in staging.earlier_names(output, layout.EARLIER_LOCK):
        try:
            holder = _json_object(storage.read_bytes(path)) or {}
        except (FileNotFoundError, IsADirectoryError):
            continue
        if {"host", "pid", "started_at", "system", "ticks"} == holder.keys():
            raise UsageError(
                f"{path} is the lock of a run of an earlier version of beamlabel (host {holder['host']}, pid "
                f"{holder['pid']}); delete it if that run has ended"
            )


def _check_earlier_run(directory: str) -> None:
    try:
        job = _json_object(storage.read_bytes(storage.join(directory, layout.JOB))) or {}
    except (FileNotFoundError, IsADirectoryError):
        return
    manifest = job.get("manifest")
    if isinstance(manifest, dict) and {"run_id", "plan_id", "versions"} <= manifest.keys():
        versions = manifest["versions"]
        version = versions.get("beamlabel") if isinstance(versions, dict) else None
        raise UsageError(
            f"{directory} was staged by an earlier version of beamlabel ({version}), which kept its files elsewhere; "
            "finish or publish that run with that version, or delete the directory"
        )


def delete_earlier_units(directory: str) -> None:
    """Deletes the records that an earlier version kept beside its result, after the result was replaced."""
    path = storage.join(directory, layout.EARLIER_UNITS)
    try:
        content = _json_object(storage.read_bytes(path))
    except (FileNotFoundError, IsADirectoryError):
        return
    records = None if content is None or content.keys() != {"records"} else content["records"]
    if isinstance(records, list) and all(
        isinstance(record, dict) and {"unit_id", "input_path", "files"} <= record.keys() for record in records
    ):
        storage.delete(path)
