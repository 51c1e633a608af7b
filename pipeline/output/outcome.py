"""The log lines at the end of a run: counts, frequent labels, failures with examples, and how to read the result.

They come from the manifest and the published files, so they are the same if another process publishes the run. An error
here does not fail the run. Reading the files takes a few seconds at most. A run with a report reads its page instead.
"""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import wait
from typing import TYPE_CHECKING, Any

from beamlabel.pipeline import layout
from beamlabel.pipeline.process.exit import DONE, OUT_OF_TIME, TOO_MANY_FAILURES
from beamlabel.transforms import storage
from beamlabel.transforms.secrets.logs import get_logger
from beamlabel.transforms.secrets.text import public_uri
from beamlabel.transforms.storage.inside import below
from beamlabel.transforms.storage.ranged_file import unbuffered
from beamlabel.transforms.storage.uris import scheme
from beamlabel.transforms.worker.daemon_pool import DaemonPool

if TYPE_CHECKING:
    from beamlabel.pipeline.report.brief import Brief

_LOGGER = get_logger("beamlabel")

SHOWN_LABELS = 5
SHOWN_REASONS = 3
_MOST_CHARACTERS = 120
_SECONDS = 2.0
_THREADS = 16
# Each shard on a bucket takes several requests.
_MOST_REMOTE_SHARDS = 64
_MOST_FAILURE_FILES = 64
_MOST_FAILURE_BYTES = 8 << 20


def report(manifest: Mapping[str, Any]) -> int:
    """Logs the outcome of a published run; returns its exit code."""
    rows = manifest["rows"]
    _LOGGER.info(
        "%d input = %d predicted + %d failed + %d skipped, in %.1f s: %s",
        rows["input"], rows["predicted"], rows["failed"], rows["skipped"], manifest["seconds"], manifest["output"],
    )  # fmt: skip
    if not rows["input"] and "retried_failures" not in manifest:
        _LOGGER.warning(
            "THE INPUT IS EMPTY: NOTHING WAS LABELED. %s has no reference. Use --min_input 1 to make that an error.",
            ", ".join(map(public_uri, manifest["options"].get("input", ()))),
        )
    if manifest.get("rows_relabeled"):
        _LOGGER.info(
            "%d of the predicted rows were labeled from the features of earlier rows, without fetching the images",
            manifest["rows_relabeled"],
        )
    if manifest.get("seconds_to_first_label") is not None:
        _LOGGER.info("The first label was ready after %.1f s", manifest["seconds_to_first_label"])
    told = _brief(manifest)
    _tell_labels(manifest, told)
    _tell_reasons(manifest, told)
    for cause, count in manifest.get("left_out", {}).items():
        _LOGGER.info("Left out of the input: %s %d", cause, count)
    if manifest.get("deleted"):
        _LOGGER.info(
            "%d images of earlier outputs are gone: %s/%s",
            manifest["deleted"],
            manifest["output"],
            layout.DELETED,
        )
    gone = manifest.get("retried_failures", 0) - rows["input"]
    if gone > 0:
        _LOGGER.warning("%d of the failed references are not in the input any more", gone)
    for line in how_to_read(manifest):
        _LOGGER.info("%s", line)
    return _code(manifest)


def _code(manifest: Mapping[str, Any]) -> int:
    """The exit code; logs the reason if it is not 0."""
    if not manifest.get("complete", True):
        _LOGGER.error(
            "Reached --time_limit before all units were done, so %s was not written. Rerun with --if_exists resume to "
            "continue.",
            layout.SUCCESS,
        )
        return OUT_OF_TIME
    options = manifest["options"]
    if not manifest.get("within_deleted_rate", True):
        told = manifest["tombstones"]
        _LOGGER.error(
            "%d of %d images of earlier outputs are not in the input any more, more than --max_deleted_rate %g: no "
            "tombstones, no %s. Check that the input is whole. If the images are really gone, rerun with "
            "--max_deleted_rate 1 --if_exists resume.",
            told["gone"], told["live"], options.get("max_deleted_rate", 0.0), layout.SUCCESS,
        )  # fmt: skip
        return TOO_MANY_FAILURES
    if manifest["within_error_rate"]:
        if manifest["error_rate"] > options["max_error_rate"]:
            _LOGGER.info(
                "%d of the %d images tried failed, a rate above --max_error_rate %g; fewer than --min_failures %d do "
                "not fail a run",
                manifest["rows"]["failed"], manifest["rows"]["failed"] + manifest["rows"]["predicted"],
                options["max_error_rate"], options.get("min_failures", 0),
            )  # fmt: skip
        return DONE
    _LOGGER.error(
        "%d of the %d images tried failed: the error rate %.4f is above --max_error_rate %g, so %s was not written",
        manifest["rows"]["failed"], manifest["rows"]["failed"] + manifest["rows"]["predicted"],
        manifest["error_rate"], options["max_error_rate"], layout.SUCCESS,
    )  # fmt: skip
    return TOO_MANY_FAILURES


def _brief(manifest: Mapping[str, Any]) -> Brief | None:
    if not manifest["options"].get("report"):
        return None
    try:
        from beamlabel.pipeline.report.brief import brief

        return brief(manifest)
    except Exception as error:  # of a storage's library, too; the shards have the same labels
        _LOGGER.debug("The report was not read: %s", error)
        return None


def _tell_labels(manifest: Mapping[str, Any], told: Brief | None) -> None:
    try:
        if told is None:
            labels, read = frequent_labels(manifest)
        else:
            labels, read = told.labels[:SHOWN_LABELS], manifest["rows"]["predicted"]
    except Exception as error:  # such as a deleted file; the run is published anyway
        _LOGGER.debug("The labels were not counted: %s", error)
        return
    if not labels:
        return
    predicted = manifest["rows"]["predicted"]
    base = (
        f"of {predicted:,} predicted"
        if read == predicted
        else f"of the first {read:,} of {predicted:,} predicted"
    )
    counted = ", ".join(f"{_cut(label)} {count:,} ({_percent(count, read)})" for label, count in labels)
    _LOGGER.info("Most frequent labels, %s: %s", base, counted)


def _percent(count: int, total: int) -> str:
    share = 100 * count / total
    return "< 1 %" if share < 1 else f"{share:.0f} %"


def frequent_labels(manifest: Mapping[str, Any]) -> tuple[list[tuple[str, int]], int]:
    """The most frequent best labels of a published run, from the label column of its shards.

    Args:
      manifest: ``_MANIFEST.json``.

    Returns:
      Up to five labels with their counts, and the number of rows counted within two seconds. No labels for TFRecords,
      since whole rows would have to be read, and for many shards on a bucket.
    """
    from beamlabel.transforms.rows import metadata_keys

    output, files = (
        manifest["output"],
        [one for one in manifest["files"] if one["kind"] == "data" and one["rows"]],
    )
    if (
        not all(one["name"].endswith(".parquet") for one in files)
        or metadata_keys.NUM_CLASSES not in manifest["metadata"]
    ):
        return [], 0
    if not storage.is_local(output) and len(files) > _MOST_REMOTE_SHARDS:
        return [], 0
    pool, until = DaemonPool(min(_THREADS, len(files)) or 1, "labels"), time.monotonic() + _SECONDS
    try:
        counting = [(pool.submit(_labels_of, below(output, one["name"])), one["rows"]) for one in files]
        wait([future for future, _ in counting], _SECONDS)
        labels, read = Counter[str](), 0
        for future, rows in counting:
            if not future.done() and time.monotonic() >= until:
                break  # the counted rows are the first ones, without a gap
            counted: dict[str, int] = pool.result(future)
            labels.update(counted)
            read += rows
    finally:
        pool.close()
    return sorted(labels.items(), key=lambda one: (-one[1], one[0]))[:SHOWN_LABELS], read


def _labels_of(path: str) -> dict[str, int]:
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    with (
        storage.open_input(path) as source,
        pq.ParquetFile(unbuffered(source), pre_buffer=False) as parquet,
    ):
        names = parquet.schema_arrow.names
        if "label" in names:
            counted = pc.value_counts(parquet.read(columns=["label"])["label"].combine_chunks())
            return {one["values"]: one["counts"] for one in counted.to_pylist() if one["values"] is not None}
        ids = parquet.read(columns=["class_ids"])["class_ids"].combine_chunks()
        best = pc.list_element(ids.filter(pc.greater(pc.list_value_length(ids), 0)), 0)
        return {f"class {one['values']}": one["counts"] for one in pc.value_counts(best).to_pylist()}


def _tell_reasons(manifest: Mapping[str, Any], told: Brief | None) -> None:
    ordered = sorted(manifest["failed_by_reason"].items(), key=lambda one: (-one[1], one[0]))
    failures = _failures(manifest) if told is None else told.failures
    examples = _examples(failures, [reason for reason, _ in ordered[:SHOWN_REASONS]])
    for reason, count in ordered:
        example = f", such as {examples[reason]}" if reason in examples else ""
        _LOGGER.info("Failed: %s %d%s", reason, count, example)
    for reason, count in manifest["skipped_by_reason"].items():
        _LOGGER.info("Skipped: %s %d", reason, count)


def _examples(failures: Iterable[Mapping[str, Any]], reasons: Sequence[str]) -> dict[str, str]:
    """The first failure of each reason, as published, without secrets."""
    found: dict[str, str] = {}
    try:
        for failure in failures:
            if (reason := str(failure.get("reason"))) in reasons and reason not in found:
                detail = f" ({_cut(failure['detail'])})" if failure.get("detail") else ""
                name = _cut(public_uri(str(failure.get("uri") or failure.get("ref_id"))))
                found[reason] = f"{name}{detail}"
                if len(found) == len(reasons):
                    break
    except Exception as error:  # of a storage's library, too; the run is published anyway
        _LOGGER.debug("No examples of failures were read: %s", error)
    return found


def _failures(manifest: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    # A file is read whole, and between two files the time is checked.
    files = [
        one for one in manifest["files"] if one["kind"] == "failures" and one["bytes"] <= _MOST_FAILURE_BYTES
    ]
    until = time.monotonic() + _SECONDS
    for one in files[:_MOST_FAILURE_FILES]:
        if time.monotonic() > until:
            return
        for line in storage.read_bytes(below(manifest["output"], one["name"])).splitlines():
            yield json.loads(line)


def _cut(text: str) -> str:
    return text if len(text) <= _MOST_CHARACTERS else f"{text[:_MOST_CHARACTERS]}..."


def how_to_read(manifest: Mapping[str, Any]) -> list[str]:
    """Lines that explain how to read a published run: Python for its rows, and the path of its report."""
    output = manifest["output"]
    lines = []
    if manifest["rows"]["predicted"]:
        lines = [f"To read the rows: {how}" for how in _readers(manifest, output)]
    if manifest["options"].get("report"):
        lines.append(f"The report: {output}/{layout.REPORT}")
    elif manifest["rows"]["input"]:
        lines.append(f"To write a report: beamlabel report {output}")
    return lines


def _readers(manifest: Mapping[str, Any], output: str) -> list[str]:
    names = [one["name"] for one in manifest["files"] if one["kind"] == "data"]
    if not all(name.endswith(".parquet") for name in names):
        return [f"tf.data.TFRecordDataset(tf.io.gfile.glob({output + '/part-*'!r}))"]
    if storage.is_local(output):
        return [f"pandas.read_parquet({output!r}), or in DuckDB SELECT * FROM {output + '/*.parquet'!r}"]
    if scheme(output) in ("gs", "s3"):
        return [f"pyarrow.parquet.read_table({output!r}).to_pandas()"]
    return []
