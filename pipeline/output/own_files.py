"""What of what lies in our folders is ours, by its content: a run deletes nothing else, and refuses to start.

A plan's folder is ours by its ``job.json``, which is written first and deleted last. Workers of a run that was given
up may still write into a folder that is gone: without ``job.json``, it is ours if it holds only what they write, whose
names are made of units and hashes of the content.
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
# What storage.write_bytes leaves on a local disk when it is killed.
_TEMPORARY = re.compile(r"\.tmp-[0-9a-f]{32}")


class _Entry(NamedTuple):
    """A file or, on a local disk, a folder."""

    path: str
    name: str
    """Relative to our folder."""
    is_folder: bool = False


def check_own_files(output: str) -> list[StagedRun]:
    """Looks through our folders of an output, before anything of them is touched.

    Of a bucket no more is listed than lies right in them and in the folders of runs; what a run has staged is looked
    through only if nothing else tells whose it is.

    Returns:
      The runs that have staged something.

    Raises:
      UsageError: something there is not ours, or was left by a version whose files had other names.
      OSError: a folder cannot be listed.
    """
    runs = [run for folder in staging.own_folders(output) for run in _check_folder(folder)]
    _check_earlier(output)
    return runs


def check_place(path: str, *, is_folder: bool) -> None:
    """Refuses a link, a pipe, or a folder in place of a file and the other way round; elsewhere there are none.

    Raises:
      UsageError: there is something else than what is to be there.
    """
    if not storage.is_local(path):
        return
    try:
        mode = Path(path).lstat().st_mode
    except (FileNotFoundError, NotADirectoryError):
        return
    if not (stat.S_ISDIR(mode) if is_folder else stat.S_ISREG(mode)):
        refuse(path)


def refuse(path: str) -> NoReturn:
    """Raises ``UsageError`` for something at a place of ours that is not ours."""
    raise UsageError(
        f"{path} is not beamlabel's, and lies where beamlabel keeps its own files; nothing was touched: "
        "move it away, or choose another --output"
    )


def is_marked(data: bytes, mark: str) -> bool:
    """Whether the content of a file carries our mark."""
    content = _json_object(data)
    return content is not None and content.get("format") == mark


def _json_object(data: bytes) -> dict[str, Any] | None:
    try:
        return dict(parse(data, OBJECT))
    except ShapeError:
        return None


def _check_folder(folder: str) -> list[StagedRun]:
    check_place(folder, is_folder=True)
    if not storage.is_local(folder):
        return _check_listed(folder)
    plans: dict[str, list[_Entry]] = defaultdict(list)
    for entry in _local_entries(folder, ""):
        parts = entry.name.split("/")
        if parts[0] == layout.STAGING and (entry.is_folder or len(parts) > 2):
            if len(parts) > 1:
                plans[parts[1]].append(entry)
        elif entry.is_folder or len(parts) > 2 or not _is_own_file(folder, entry.path, parts):
            refuse(entry.path)
    runs = []
    for plan, entries in plans.items():
        place = storage.join(folder, layout.STAGING, plan)
        names = {entry.path[len(place) + 1 :] for entry in entries if not entry.is_folder}
        runs.append(StagedRun(place, frozenset(name for name in names if "/" not in name)))
        _check_plan(runs[-1], entries)
    return runs


def _check_listed(folder: str) -> list[StagedRun]:
    """The same where folders are listed one by one."""
    runs = []
    for found in storage.entries(folder):
        name = found.path[len(folder) + 1 :]
        if isinstance(found, storage.StoredFile):
            if not _is_own_file(folder, found.path, [name]):
                refuse(found.path)
            continue
        for below in storage.entries(found.path) if name == layout.STAGING else _some(found.path):
            if isinstance(below, storage.Folder):
                runs.append(staging.staged_run(below.path))
            elif name != layout.STAGING or not _is_own_file(folder, below.path, [name, ""]):
                refuse(below.path)
    for run in runs:
        there = storage.match(storage.escape(run.folder) + "/")
        _check_plan(run, (_Entry(file.path, file.path[len(folder) + 1 :]) for file in there))
    return runs


def _some(folder: str) -> Iterator[storage.StoredFile]:
    """A file of the folder, if there is one."""
    return islice(storage.match(storage.escape(folder) + "/"), 1)


def _is_own_file(folder: str, path: str, parts: Sequence[str]) -> bool:
    """Whether a file right in our folder, or in that of runs, is ours."""
    if _TEMPORARY.fullmatch(path.rpartition("/")[2]):
        return True
    if parts == [layout.LOCK]:
        # In a bucket whoever took it has looked at it; on a local disk it may be at two places.
        return not storage.is_local(folder) or _has_mark(path, layout.LOCK_FORMAT)
    return parts == [layout.UNITS] and _has_mark(path, layout.UNITS_FORMAT)


def _check_plan(run: StagedRun, entries: Iterable[_Entry]) -> None:
    folder = run.folder
    if layout.JOB in run.files:
        job = storage.join(folder, layout.JOB)
        if not _has_mark(job, layout.JOB_FORMAT):
            refuse(job)
        return
    prefix = len(folder) + 1
    for entry in entries:
        name = entry.path[prefix:]
        is_commit = name == layout.COMMIT and _has_mark(entry.path, layout.COMMIT_FORMAT)
        is_ours = _BY_WORKERS.fullmatch(name) or _TEMPORARY.fullmatch(name.rpartition("/")[2]) or is_commit
        if not entry.is_folder and not is_ours:
            refuse(folder)


def _local_entries(folder: str, prefix: str) -> Iterator[_Entry]:
    """Follows no links. A worker that is still about may delete what was just listed."""
    entries: list[os.DirEntry[str]] = []
    with suppress(FileNotFoundError), os.scandir(folder) as listing:
        entries = sorted(listing, key=lambda entry: entry.name)
    for entry in entries:
        is_folder = entry.is_dir(follow_symlinks=False)
        if not is_folder:
            check_place(entry.path, is_folder=False)
        yield _Entry(entry.path, prefix + entry.name, is_folder)
        if is_folder:
            yield from _local_entries(entry.path, f"{prefix}{entry.name}/")


def _has_mark(path: str, mark: str) -> bool:
    try:
        return is_marked(storage.read_bytes(path), mark)
    except FileNotFoundError:  # gone meanwhile
        return True


def _check_earlier(output: str) -> None:
    """Names what an earlier version has left unfinished, or is at: it is not ours to finish, and not to delete."""
    for root in staging.earlier_names(output, layout.EARLIER_STAGING):
        for found in storage.entries(root):
            if isinstance(found, storage.Folder):
                _check_earlier_run(found.path)
    for path in staging.earlier_names(output, layout.EARLIER_LOCK):
        try:
            holder = _json_object(storage.read_bytes(path)) or {}
        except (FileNotFoundError, IsADirectoryError):
            continue
        if {"host", "pid", "started_at", "system", "ticks"} == holder.keys():
            raise UsageError(
                f"{path} is the lock of a run of an earlier version of beamlabel (host {holder['host']}, pid "
                f"{holder['pid']}): when no such run is at work, delete it"
            )


def _check_earlier_run(folder: str) -> None:
    try:
        job = _json_object(storage.read_bytes(storage.join(folder, layout.JOB))) or {}
    except (FileNotFoundError, IsADirectoryError):
        return
    manifest = job.get("manifest")
    if isinstance(manifest, dict) and {"run_id", "plan_id", "versions"} <= manifest.keys():
        versions = manifest["versions"]
        version = versions.get("beamlabel") if isinstance(versions, dict) else None
        raise UsageError(
            f"{folder} was staged by an earlier beamlabel ({version}), which kept its files elsewhere: finish or "
            "publish that run with it, or delete the folder"
        )


def delete_earlier_units(folder: str) -> None:
    """Deletes the records that an earlier version kept beside its result, which has been replaced."""
    path = storage.join(folder, layout.EARLIER_UNITS)
    try:
        content = _json_object(storage.read_bytes(path))
    except (FileNotFoundError, IsADirectoryError):
        return
    records = None if content is None or content.keys() != {"records"} else content["records"]
    if isinstance(records, list) and all(
        isinstance(record, dict) and {"unit_id", "input_path", "files"} <= record.keys() for record in records
    ):
        storage.delete(path)
