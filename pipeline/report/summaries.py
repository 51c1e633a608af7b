"""Summaries of a run's units: staged by the run, or made again from the shards without thumbnails."""

from __future__ import annotations

import functools
import itertools
import re
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import groupby
from operator import itemgetter
from typing import Any

import numpy as np

from beamlabel.transforms import storage
from beamlabel.transforms.records import UnitRecord
from beamlabel.transforms.rows.tf_examples import decode
from beamlabel.transforms.rows.tfrecord import read_records
from beamlabel.transforms.shapes import TEXT, optional, parse
from beamlabel.transforms.storage.inside import below
from beamlabel.transforms.worker.read_ahead import read_ahead
from beamlabel.transforms.writing.unit_summary import ROW_COLUMNS, Summarizer, UnitSummary

# Rows per batch: 10 MB with 1,280 features.
_BATCH_ROWS = 2048
_READERS = 8
# Staged summaries to read at a time; they are small.
_SUMMARIES = 32
# The unit's number in the name of a published file: part-RUN-NUMBER.ENDING.
_NUMBER = re.compile(r"-(\d+)\.")
_TEXTS = ("uri", "ref_id", "image_id", "labels")
_COLUMNS = (*ROW_COLUMNS, "embedding")
_FAILURE = {"reason": TEXT, "uri?": optional(TEXT), "ref_id?": optional(TEXT), "detail?": optional(TEXT)}


def staged_summaries(
    output: str, staging_dir: str, manifest: Mapping[str, Any], records: Sequence[UnitRecord]
) -> Iterator[UnitSummary]:
    """The summaries of a run whose shards are published and whose staging directory still exists.

    A unit is summarized from its shard if an earlier attempt without --report staged it without a summary.
    """
    published = {file["staged_as"]: file for file in manifest["files"]}

    def summary(record: UnitRecord) -> UnitSummary:
        for file in record.files:
            if file.kind == "summary":
                path = below(staging_dir, file.name)
                return UnitSummary.from_json(storage.read_bytes(path))
        files = [published[file.name] for file in record.files if file.name in published]
        return summarize_shard(output, files, manifest["metadata"])

    ordered = sorted(records, key=lambda record: record.unit_id)
    # Each takes at least a round trip to a bucket: read several at a time, but never hold all in memory.
    with ThreadPoolExecutor(_SUMMARIES, thread_name_prefix="summaries") as pool:
        for start in range(0, len(ordered), _SUMMARIES):
            yield from pool.map(summary, ordered[start : start + _SUMMARIES])


def published_summaries(output: str, manifest: Mapping[str, Any]) -> Iterator[UnitSummary]:
    """The summaries of a published run, from the shards and failures in its manifest."""
    numbered = [(int(_NUMBER.findall(file["name"])[-1]), file) for file in manifest["files"]]
    units = [
        [file for _, file in group]
        for _, group in groupby(sorted(numbered, key=itemgetter(0)), key=itemgetter(0))
    ]

    def summaries(files: Sequence[Mapping[str, Any]]) -> Iterator[UnitSummary]:
        yield summarize_shard(output, files, manifest["metadata"])

    sources = (functools.partial(summaries, files) for files in units)
    yield from read_ahead(sources, readers=1 if storage.is_local(output) else _READERS)


def summarize_shard(
    output: str, files: Sequence[Mapping[str, Any]], metadata: Mapping[str, str]
) -> UnitSummary:
    """Streams the files of one unit.

    Args:
      output: the output directory.
      files: the unit's entries in the manifest, with ``name`` and ``kind``.
      metadata: file metadata of the output.

    Raises:
      OSError, ValueError: a file cannot be read.
      ImportError: the shards are TFRecords and tfx-bsl is not installed.
    """
    summarizer = Summarizer(metadata)
    failures: list[dict[str, str | None]] = []
    for file in files:
        path = below(output, file["name"])
        if file["kind"] not in ("data", "failures"):
            continue
        if file["kind"] == "failures":
            failures = [parse(line, _FAILURE) for line in storage.read_bytes(path).splitlines()]
            continue
        (_add_parquet if path.endswith(".parquet") else _add_tfrecords)(summarizer, path)
    return summarizer.finish(failures)


def _add_parquet(summarizer: Summarizer, path: str) -> None:
    import pyarrow.parquet as pq

    with storage.open_input(path) as source, pq.ParquetFile(source, pre_buffer=False) as parquet:
        columns = [name for name in _COLUMNS if name in parquet.schema_arrow.names]
        for batch in parquet.iter_batches(_BATCH_ROWS, columns=columns):
            summarizer.add_batch(batch)


def _add_tfrecords(summarizer: Summarizer, path: str) -> None:
    """Does the same as ``_add_parquet`` for a shard of ``tf.Example``."""
    with storage.open_input(path) as source:
        records = read_records(source)
        while chunk := list(itertools.islice(records, _BATCH_ROWS)):
            rows, embeddings = [], []
            for row in decode(chunk, _COLUMNS):
                texts = {name: [text.decode() for text in row.get(name) or ()] for name in _TEXTS}
                embeddings += [found] if (found := row.pop("embedding", None)) else []
                singles = {name: (texts[name] or [""])[0] for name in ("uri", "ref_id", "image_id")}
                rows.append({**row, **texts, **singles})
            summarizer.add_rows(rows, np.array(embeddings, np.float32) if embeddings else None)
