"""Daft: ``download``, a class of user-defined functions that holds the module, ``write_parquet``.

OpenCV decodes and resizes within the function, because Daft's own resize gives other pixels.
"""

from __future__ import annotations

import os
from typing import Any

import peer

BATCH = 64

os.environ.setdefault("DAFT_PROGRESS_BAR", "0")
os.environ.setdefault("DO_NOT_TRACK", "true")


class Label:
    """Decodes and infers a batch; Daft creates one for each worker."""

    def __init__(self, module: str, facts: peer.Facts) -> None:
        import cv2

        cv2.setNumThreads(1)
        self._model = peer.TensorFlowModel(module, facts, threads=1)
        self._size = (facts.height, facts.width)

    def __call__(self, data: Any) -> Any:
        import numpy as np

        pixels = np.stack([peer.decode(one.as_buffer(), self._size) for one in data.to_arrow()])
        rows = peer.table([""] * len(pixels), *self._model.from_pixels(pixels))
        return rows.drop(["uri"]).to_struct_array().combine_chunks()


def main() -> None:
    peer.let_workers_import_this()
    options = peer.parser(__doc__).parse_args()
    import daft
    from daft import DataType, col
    from daft.functions import download

    facts = peer.read_facts(options.prepared)
    row = DataType.struct(
        {
            "class_ids": DataType.fixed_size_list(DataType.int32(), peer.TOP_K),
            "scores": DataType.fixed_size_list(DataType.float32(), peer.TOP_K),
            "embedding": DataType.fixed_size_list(DataType.float32(), facts.dimensions),
        }
    )
    Label.__call__ = daft.method.batch(return_dtype=row, batch_size=BATCH)(Label.__call__)
    label = daft.cls(Label, max_concurrency=len(os.sched_getaffinity(0)))(options.module, facts)
    output = peer.empty_directory(options.output)
    frame = daft.from_pydict({"uri": peer.read_list(options.input)}).into_batches(BATCH)
    frame = frame.with_column("row", label(download(col("uri"))))
    columns = [col("row")[name].alias(name) for name in ("class_ids", "scores", "embedding")]
    frame.select("uri", *columns).write_parquet(str(output), write_mode="overwrite")


if __name__ == "__main__":
    main()
