"""Writes labeled elements to Parquet or TFRecord files, for pipelines without work units."""

from __future__ import annotations

import dataclasses
import json
import os
import time
from collections.abc import Iterator, Mapping
from typing import Any

import apache_beam as beam
import pyarrow as pa
from apache_beam.io import WriteToText, WriteToTFRecord
from apache_beam.io.filesystem import CompressionTypes
from apache_beam.utils.windowed_value import WindowedValue

from beamlabel.transforms import storage
from beamlabel.transforms.arguments import checked_arguments
from beamlabel.transforms.elements.labeled_rows import LabeledRows, check_predictions, kept_fields_of
from beamlabel.transforms.elements.parquet_sink import WriteTables
from beamlabel.transforms.elements.split_outcomes import LabeledImages
from beamlabel.transforms.label_images import LabelImages
from beamlabel.transforms.output_spec import labeled_at
from beamlabel.transforms.rows import tf_examples
from beamlabel.transforms.rows.schema import FORMATS, RENAMING, OutputSpec, arrow_schema
from beamlabel.transforms.rows.times import iso_time

# Approximate bytes of a table, which becomes a row group of Parquet.
_TABLE_BYTES = 2 << 20
_MAX_ROWS = 4096
_METADATA = "_METADATA.json"

# The command renames columns itself; in a pipeline, an earlier step does.
_ADVICE = "in a step before WriteLabels, or leave it out by columns"


class WriteLabels(beam.PTransform):
    """Writes labels with the columns of ``docs/output.md``, and failures: ``labeled | WriteLabels("out/")``.

    Takes the output of ``LabelImages``: both, or ``labeled.predictions`` alone, also after other steps that keep the
    added fields. The labels go to ``part-*.parquet`` or ``part-*.tfrecord``, failures to ``_failures/part-*.jsonl``,
    one JSON object per line. Parquet files hold the module's facts as file metadata (``beamlabel.*``); with TFRecords
    these are in ``_METADATA.json``.

    The user's fields of rows become columns too, with their types; those of dicts do if ``columns`` names them. Beam's
    own sinks write the files, so that a retried bundle leaves no duplicates. An unbounded PCollection is written window
    by window.

    Args:
      output: directory, local or remote; must not contain shards yet, unless the PCollection is unbounded.
      output_format: ``parquet`` or ``tfrecord``.
      compression: compression of TFRecords: ``none`` or ``gzip``; Parquet uses zstd.
      columns: the user's fields to keep, by name, with their Arrow types; None: all fields of a row, and a dict must
        have no others.
      num_shards: number of files; 0: the runner decides.
      triggering_frequency: length in seconds of the windows for writing an unbounded PCollection in the global window.
      labels: the ``LabelImages`` that created the elements; None: the one that they come from.

    Returns:
      A PCollection of the names of the files.

    Raises:
      ValueError: an argument is out of range; in ``expand``: the elements do not come from one ``LabelImages``,
        ``output`` contains shards, or the format cannot hold a column's type.
      TypeError: in ``expand``: the elements have no fields, such as pairs.
      ImportError: in ``expand``: TFRecords need tfx-bsl, which is not installed.
    """

    @checked_arguments
    def __init__(
        self,
        output: str | os.PathLike[str],
        *,
        output_format: str = "parquet",
        compression: str = "none",
        columns: Mapping[str, pa.DataType] | None = None,
        num_shards: int = 0,
        triggering_frequency: int | None = None,
        labels: LabelImages | None = None,
    ) -> None:
        super().__init__()
        self._output = storage.absolute(os.fspath(output)).rstrip("/")
        if output_format not in FORMATS:
            raise ValueError(f"output_format must be {' or '.join(FORMATS)}, not {output_format!r}")
        # OutputSpec makes the other checks.
        OutputSpec(format=output_format, compression=compression)
        self._format, self._compression = output_format, compression
        # Beam's sinks find their own temporary files by patterns.
        if any(char in self._output for char in "*?["):
            raise ValueError(f"output must not contain *, ? or [, which stand for patterns: {self._output!r}")
        for name, kind in (columns or {}).items():
            if not isinstance(name, str) or not name:
                raise ValueError(f"columns: a name must be text, not {name!r}")
            if not isinstance(kind, pa.DataType):
                raise ValueError(f"columns: {name!r} must have an Arrow type, not {kind!r}")
        self._columns = columns
        if isinstance(num_shards, bool) or not isinstance(num_shards, int) or num_shards < 0:
            raise ValueError(f"num_shards must be a whole number of at least 0, not {num_shards!r}")
        self._num_shards, self._frequency = num_shards, triggering_frequency
        self._labels = labels

    def expand(self, labeled: LabeledImages | beam.PCollection[Any]) -> beam.PCollection[str]:
        predictions = labeled[0] if isinstance(labeled, tuple) else labeled
        check_predictions(predictions.element_type)
        labels = self._labels or made_by(predictions)
        spec = self._spec(labels, predictions)
        if predictions.is_bounded:
            _check_empty(self._output)
        rows = LabeledRows(spec, labels.elements)
        names = self._write(predictions | "ToArrow" >> _to_tables(rows), spec)
        if isinstance(labeled, tuple):
            self._write_failures(labeled[1], spec.labeled_at)
        return names

    def _spec(self, labels: LabelImages, predictions: beam.PCollection[Any]) -> OutputSpec:
        kept = kept_fields_of(predictions.element_type, self._columns, labels.elements)
        try:
            return dataclasses.replace(
                labels.spec,
                format=self._format,
                compression=self._compression,
                kept_fields=kept,
                labeled_at=labeled_at(time.time()),
            )
        except ValueError as error:
            raise ValueError(str(error).replace(RENAMING, _ADVICE)) from None

    def _write(self, tables: beam.PCollection[pa.Table], spec: OutputSpec) -> beam.PCollection[str]:
        prefix = storage.join(self._output, "part")
        shards: dict[str, Any] = {"num_shards": self._num_shards, "triggering_frequency": self._frequency}
        if self._format == "parquet":
            return tables | "Write" >> WriteTables(prefix, arrow_schema(spec), **shards)
        shards["file_name_suffix"] = f".{spec.file_ending}"
        tf_examples.check_installed()
        facts = tables.pipeline | "Metadata" >> beam.Create([json.dumps(spec.metadata, indent=1)])
        _ = facts | "WriteMetadata" >> beam.Map(_write_text, storage.join(self._output, _METADATA))
        compression = CompressionTypes.GZIP if spec.compression == "gzip" else CompressionTypes.UNCOMPRESSED
        examples = tables | "Encode" >> beam.FlatMap(_examples).with_output_types(bytes)
        return examples | "Write" >> WriteToTFRecord(prefix, compression_type=compression, **shards)

    def _write_failures(self, failures: beam.PCollection[Any], failed_at: int) -> None:
        prefix = storage.join(self._output, "_failures", "part")
        lines = failures | "ToJson" >> beam.Map(_json_line, iso_time(failed_at)).with_output_types(str)
        more = {} if self._frequency is None else {"triggering_frequency": self._frequency}
        _ = lines | "WriteFailures" >> WriteToText(prefix, file_name_suffix=".jsonl", **more)


def made_by(predictions: beam.PCollection[Any]) -> LabelImages:
    """The ``LabelImages`` that a PCollection comes from, through any steps.

    Raises:
      ValueError: there is none, or several.
    """
    found: dict[int, LabelImages] = {}
    seen: set[Any] = set()
    waiting = [predictions]
    while waiting:
        producer = waiting.pop().producer
        node = producer
        while node is not None and not isinstance(node.transform, LabelImages):
            node = node.parent
        if node is not None:
            found[id(node.transform)] = node.transform
        elif producer is not None and producer not in seen:
            seen.add(producer)
            waiting += producer.inputs
    if len(found) != 1:
        said = "no LabelImages" if not found else f"{len(found)} LabelImages"
        raise ValueError(
            f"WriteLabels: the elements come from {said}; set labels to the LabelImages that created them"
        )
    return next(iter(found.values()))


def _check_empty(output: str) -> None:
    for pattern in ("part-*", "_failures/part-*"):
        there = next(iter(storage.match(storage.join(storage.escape(output), pattern))), None)
        if there is not None:
            raise ValueError(
                f"output {output!r} already contains shards, such as {there.path}; use another directory"
            )


class _ToTables(beam.DoFn):
    """Gathers the rows of a bundle, window by window, into tables."""

    def __init__(self, rows: LabeledRows) -> None:
        self._rows = rows
        self._size = max(64, min(_MAX_ROWS, _TABLE_BYTES // rows.row_bytes))

    def start_bundle(self) -> None:
        self._waiting: dict[Any, list[Any]] = {}

    def process(self, element: Any, window: Any = beam.DoFn.WindowParam) -> Iterator[pa.Table]:
        waiting = self._waiting.setdefault(window, [])
        waiting.append(element)
        if len(waiting) >= self._size:
            yield self._rows.table(self._waiting.pop(window))

    def finish_bundle(self) -> Iterator[WindowedValue]:
        for window, waiting in self._waiting.items():
            yield WindowedValue(self._rows.table(waiting), window.max_timestamp(), (window,))
        self._waiting = {}


def _to_tables(rows: LabeledRows) -> Any:
    return beam.ParDo(_ToTables(rows)).with_output_types(pa.Table)


def _examples(table: pa.Table) -> Iterator[bytes]:
    for batch in table.to_batches():
        yield from tf_examples.encode(batch)


def _write_text(text: str, path: str) -> None:
    storage.write_bytes(path, text.encode())


def _json_line(element: Any, failed_at: str) -> str:
    from beamlabel.transforms.elements.labeled_rows import failure_fields

    return json.dumps({**failure_fields(element), "failed_at": failed_at}, allow_nan=False)
