"""Arrow tables → Parquet files, by a Beam sink that several windows can use at the same time."""

from __future__ import annotations

from typing import Any, BinaryIO, NamedTuple

import apache_beam as beam
import pyarrow as pa
import pyarrow.parquet as pq
from apache_beam.io import filebasedsink
from apache_beam.io.filesystem import CompressionTypes

# FileBasedSink's own default for bounded PCollections, and the template that names the window.
_SHARDS = "-SSSSS-of-NNNNN"
_SHARDS_OF_WINDOWS = "-W-SSSSS-of-NNNNN"


class _OpenFile(NamedTuple):
    handle: BinaryIO
    writer: pq.ParquetWriter


class _ParquetSink(filebasedsink.FileBasedSink):
    """A sink that passes the open file along.

    Beam's own Parquet sink keeps the file as an attribute, so it never closes one of a bundle's two windows.
    """

    def __init__(self, prefix: str, schema: pa.Schema, **options: Any) -> None:
        super().__init__(
            prefix,
            coder=None,
            file_name_suffix=".parquet",
            mime_type="application/x-parquet",
            compression_type=CompressionTypes.UNCOMPRESSED,
            **options,
        )
        self._schema = schema

    def open(self, temp_path: str) -> _OpenFile:
        handle = super().open(temp_path)
        return _OpenFile(handle, pq.ParquetWriter(handle, self._schema, compression="zstd"))

    def write_record(self, open_file: _OpenFile, table: pa.Table) -> None:
        open_file.writer.write_table(table)

    def close(self, open_file: _OpenFile) -> None:
        open_file.writer.close()
        open_file.handle.close()


class WriteTables(beam.PTransform):
    """``pyarrow.Table`` → Parquet files (zstd, one row group per table); the result holds the files' names.

    Args:
      prefix: of the files' names.
      schema: of each table, with the file metadata.
      num_shards: number of files; 0: the runner decides.
      triggering_frequency: see ``WriteLabels``.
    """

    def __init__(
        self, prefix: str, schema: pa.Schema, *, num_shards: int = 0, triggering_frequency: int | None = None
    ) -> None:
        super().__init__()
        self._prefix, self._schema = prefix, schema
        self._num_shards, self._frequency = num_shards, triggering_frequency

    def expand(self, tables: beam.PCollection[pa.Table]) -> beam.PCollection[str]:
        sink = _ParquetSink(
            self._prefix,
            self._schema,
            num_shards=self._num_shards,
            shard_name_template=_SHARDS if tables.is_bounded else _SHARDS_OF_WINDOWS,
            triggering_frequency=self._frequency,
        )
        return tables | beam.io.Write(sink)
