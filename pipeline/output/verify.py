"""Verifies a published result against its manifest: recounts, hashes and reads everything."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Set
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import chain
from typing import Any

from beamlabel.pipeline import layout
from beamlabel.pipeline.output.manifest import (
    absolute_output,
    error_rate,
    is_success,
    require_manifest,
    within_error_rate,
)
from beamlabel.pipeline.output.verify_files import Checked, check_file
from beamlabel.transforms import storage
from beamlabel.transforms.rows import metadata_keys
from beamlabel.transforms.storage.inside import below, is_plain

# Local reads are limited by the CPU, remote ones by the latency of responses.
_THREADS = 4
_THREADS_FROM_AFAR, _THREADS_FOR_FOOTERS = 8, 32


@dataclass(frozen=True)
class Verified:
    """The result of the verification.

    Attributes:
      problems: one line each; none: the result is good.
      files: number of files in the manifest.
      predicted, failed, skipped: numbers of references in the manifest.
      bytes_read: of the files' content.
    """

    problems: tuple[str, ...]
    files: int = 0
    predicted: int = 0
    failed: int = 0
    skipped: int = 0
    bytes_read: int = 0


def verify(output: str, *, quick: bool = False) -> Verified:
    """Checks a local or remote result in bounded memory: a few thousand rows of a few files at a time.

    Args:
      output: the result's directory.
      quick: do not hash, and read only the Parquet footers of data shards.

    Raises:
      UsageError: there is no result.
      OSError: the directory cannot be listed.
    """
    output = absolute_output(output)
    try:
        manifest = require_manifest(output)
        files = [_entry(file) for file in manifest["files"]]
        problems = [*_numbers(manifest, files), *_names(files)]
        metadata = {str(key): str(value) for key, value in manifest["metadata"].items()}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        problem = f"{layout.MANIFEST}: damaged, or not a manifest: {type(error).__name__} {error}"
        return Verified((problem,))
    listed = {file.path[len(output) + 1 :]: file for file in _listed(output)}
    problems += _presence(manifest, files, listed.keys())
    there = [file for file in files if file["name"] in listed and _is_inside(output, file["name"], problems)]

    def check(file: Mapping[str, Any]) -> Checked:
        return check_file(output, file, listed[file["name"]], metadata, quick=quick)

    with ThreadPoolExecutor(_threads(output, quick=quick)) as threads:
        checked = list(threads.map(check, there))
    problems += chain.from_iterable(one.problems for one in checked)
    problems += _across(manifest, files, there, checked)
    return Verified(
        tuple(problems),
        len(files),
        manifest["rows"]["predicted"],
        manifest["rows"]["failed"],
        manifest["rows"]["skipped"],
        sum(one.bytes_read for one in checked),
    )


def _threads(output: str, *, quick: bool) -> int:
    if storage.is_local(output):
        return _THREADS
    return _THREADS_FOR_FOOTERS if quick else _THREADS_FROM_AFAR


def _listed(output: str) -> Iterator[storage.StoredFile]:
    """The files of an output outside our own directory, which may hold many."""
    for found in storage.entries(output):
        if isinstance(found, storage.StoredFile):
            yield found
        elif found.path != storage.join(output, layout.OWN):
            yield from storage.match(storage.escape(found.path) + "/")


def _entry(file: Mapping[str, Any]) -> dict[str, Any]:
    types = {"name": str, "kind": str, "rows": int, "bytes": int, "sha256": str}
    return {"computed_by": file.get("computed_by"), **{key: kind(file[key]) for key, kind in types.items()}}


def _numbers(manifest: Mapping[str, Any], files: list[dict[str, Any]]) -> Iterator[str]:
    """Checks the manifest's numbers against each other."""
    rows, reasons = manifest["rows"], manifest["failed_by_reason"]
    outcome = rows["predicted"] + rows["failed"] + rows["skipped"]
    if rows["input"] != outcome or not manifest["conserved"]:
        yield (
            f"{layout.MANIFEST}: {rows['input']} input rows, but {rows['predicted']} predicted + {rows['failed']} "
            f"failed + {rows['skipped']} skipped = {outcome}"
        )
    counts = {"data": ("predicted", rows["predicted"]), "failures": ("failed", rows["failed"])}
    counts["deleted"] = ("deleted", manifest.get("deleted", 0))
    for kind, (key, count) in counts.items():
        total = sum(file["rows"] for file in files if file["kind"] == kind)
        if total != count:
            yield f"{layout.MANIFEST}: {count} rows {key}, but its {kind} files have {total}"
    if sum(reasons.values()) != rows["failed"]:
        yield f"{layout.MANIFEST}: {rows['failed']} rows failed, but by reason {sum(reasons.values())}"
    skips = manifest.get("skipped_by_reason")
    if skips is not None and sum(skips.values()) != rows["skipped"]:
        yield f"{layout.MANIFEST}: {rows['skipped']} rows skipped, but by reason {sum(skips.values())}"
    rate = error_rate(rows)
    if abs(manifest["error_rate"] - rate) > 1e-9:
        yield f"{layout.MANIFEST}: error_rate is {manifest['error_rate']}, but {rate} by its rows"
    allowed, least = manifest["options"]["max_error_rate"], manifest["options"].get("min_failures", 0)
    if manifest["within_error_rate"] != within_error_rate(rows, allowed, least):
        yield f"{layout.MANIFEST}: within_error_rate is {manifest['within_error_rate']}, which contradicts its rows"
    told = manifest.get("tombstones")
    if told is not None and manifest["within_deleted_rate"] != (told["gone"] == manifest["deleted"]):
        yield (
            f"{layout.MANIFEST}: within_deleted_rate is {manifest['within_deleted_rate']}, but {told['gone']} images "
            f"are gone and {manifest['deleted']} tombstones were written"
        )
    metadata = manifest["metadata"]
    if manifest["module"]["fingerprint"] != metadata[metadata_keys.MODULE_FINGERPRINT]:
        yield f"{layout.MANIFEST}: contains two different module fingerprints"


def _names(files: list[dict[str, Any]]) -> Iterator[str]:
    """Checks for names that are listed twice or lead out of the directory; the latter are not read."""
    for name, count in Counter(file["name"] for file in files).items():
        if count > 1:
            yield f"{layout.MANIFEST}: names {name} {count} times"
        if not is_plain(name):
            yield f"{layout.MANIFEST}: {name!r} is not a file of this directory"
    for file in files:
        if file["kind"] not in layout.DIRECTORIES:
            yield f"{layout.MANIFEST}: {file['name']} has an unknown kind: {file['kind']!r}"


def _is_inside(output: str, name: str, problems: list[str]) -> bool:
    """Whether a file may be read, because no link leads elsewhere."""
    try:
        below(output, name)
    except ValueError as error:
        problems.append(f"{layout.MANIFEST}: {error}")
        return False
    return True


def _presence(manifest: Mapping[str, Any], files: list[dict[str, Any]], listed: Set[str]) -> Iterator[str]:
    """Checks for missing files, and for others that readers would take for a part of the result."""
    named = {file["name"] for file in files}
    for name in sorted(named - listed):
        yield f"{name}: missing"
    for name in sorted(listed - named):
        directory, _, rest = name.partition("/")
        if not directory.startswith(("_", ".")) or (
            f"{directory}/" in layout.DIRECTORIES.values() and not rest.startswith(("_", "."))
        ):
            yield f"{name}: not in the manifest"
    succeeded = layout.SUCCESS in listed
    if succeeded != is_success(manifest):
        rate = f"the error rate is {'within' if manifest['within_error_rate'] else 'above'} --max_error_rate"
        time = "" if manifest.get("complete", True) else ", and the run reached --time_limit before the end"
        gone = "" if manifest.get("within_deleted_rate", True) else ", and too many images were gone"
        yield f"{layout.SUCCESS}: {'exists' if succeeded else 'missing'}, but {rate}{time}{gone}"
    tfrecord = any(file["kind"] == "data" and ".tfrecord" in file["name"] for file in files)
    if tfrecord != (layout.SCHEMA_PBTXT in listed):
        format_ = "TFRecords" if tfrecord else "Parquet"
        yield f"{layout.SCHEMA_PBTXT}: {'missing' if tfrecord else 'exists'}, but the shards are {format_}"


def _across(
    manifest: Mapping[str, Any],
    files: list[dict[str, Any]],
    there: list[dict[str, Any]],
    checked: list[Checked],
) -> Iterator[str]:
    """Checks all files together: that columns are equal, and that failures by reason add up."""
    schemas = [
        (file["name"], one.schema) for file, one in zip(there, checked, strict=True) if one.schema is not None
    ]
    for name, found_schema in schemas[1:]:
        if not found_schema.equals(schemas[0][1]):
            yield f"{name}: its columns differ from those of {schemas[0][0]}"
    counted = [one.reasons for one in checked if one.reasons is not None]
    if len(counted) == sum(file["kind"] == "failures" for file in files):
        found: Counter[str] = Counter()
        for reasons in counted:
            found.update(reasons)
        for reason in sorted(found.keys() | manifest["failed_by_reason"].keys()):
            says = manifest["failed_by_reason"].get(reason, 0)
            if found[reason] != says:
                yield f"{layout.FAILURES}: {found[reason]} rows failed with {reason}, the manifest says {says}"
