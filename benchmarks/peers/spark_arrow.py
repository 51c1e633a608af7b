"""Spark on this machine: ``read.text``, ``mapInArrow`` with the module loaded once a worker, ``write.parquet``.

Spark has no lists of a fixed size; its Parquet contains plain lists.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import peer

BATCH = 64
COLUMNS = "uri string, class_ids array<int>, scores array<float>, embedding array<float>"

os.environ["PYSPARK_PYTHON"] = sys.executable


def labeler(module: str, facts: peer.Facts) -> Callable[[Iterable[Any]], Iterator[Any]]:
    """Returns the function that Spark runs over the record batches of a partition."""

    def label(batches: Iterable[Any]) -> Iterator[Any]:
        import peer
        import pyarrow as pa

        fields = [("class_ids", pa.int32()), ("scores", pa.float32()), ("embedding", pa.float32())]
        schema = pa.schema([("uri", pa.string()), *((name, pa.list_(kind)) for name, kind in fields)])
        model = peer.TensorFlowModel(module, facts, threads=1)
        for batch in batches:
            uris = batch.column(0).to_pylist()
            pixels = peer.decode_files(uris, (facts.height, facts.width))
            yield from peer.table(uris, *model.from_pixels(pixels)).cast(schema).to_batches()

    return label


def main() -> None:
    peer.let_workers_import_this()
    options = peer.parser(__doc__).parse_args()
    from pyspark.sql import SparkSession

    cores = len(os.sched_getaffinity(0))
    spark = (
        SparkSession.builder.master(f"local[{cores}]")
        .config("spark.ui.enabled", "false")
        .config("spark.driver.host", "127.0.0.1")
        .config("spark.driver.memory", "2g")
        .config("spark.log.level", "ERROR")
        .config("spark.sql.execution.arrow.maxRecordsPerBatch", BATCH)
        .getOrCreate()
    )
    output = peer.empty_directory(options.output)
    paths = spark.read.text(f"file://{Path(options.input).resolve()}").repartition(cores)
    rows = paths.mapInArrow(labeler(options.module, peer.read_facts(options.prepared)), COLUMNS)
    rows.write.mode("overwrite").parquet(f"file://{output}")
    spark.stop()


if __name__ == "__main__":
    main()
