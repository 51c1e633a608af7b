"""The script that an expert would write for one machine, without a framework.

There are as many processes as cores. Each reads, decodes, resizes, infers (LiteRT, one thread, eight images a call,
which stay in the processor's cache) and writes its own Parquet file. They share only a counter.
"""

from __future__ import annotations

import multiprocessing
import os
from pathlib import Path
from typing import Any

import peer

BATCH = 8
ROWS_A_WRITE = 512

os.environ.setdefault("OMP_NUM_THREADS", "1")


class LiteRtModel:
    """The module as a LiteRT file, in one thread."""

    def __init__(self, prepared: str, facts: peer.Facts) -> None:
        from ai_edge_litert.interpreter import Interpreter

        self._interpreter = Interpreter(str(Path(prepared) / "model.tflite"), num_threads=1)
        (image,) = self._interpreter.get_input_details()
        self._image = image["index"]
        by_width = {out["shape"][-1]: out["index"] for out in self._interpreter.get_output_details()}
        self._logits, self._features = by_width[facts.classes], by_width[facts.dimensions]
        self._size = 0

    def __call__(self, images: Any) -> tuple[Any, Any]:
        """Maps float32[N, height, width, 3] to copies of logits and features."""
        if len(images) != self._size:
            self._interpreter.resize_tensor_input(self._image, images.shape)
            self._interpreter.allocate_tensors()
            self._size = len(images)
        self._interpreter.set_tensor(self._image, images)
        self._interpreter.invoke()
        return self._interpreter.get_tensor(self._logits), self._interpreter.get_tensor(self._features)


class Writer:
    """Collects batches and writes some hundred rows at a time."""

    def __init__(self, path: Path, dimensions: int) -> None:
        import pyarrow.parquet as pq

        self._file = pq.ParquetWriter(path, peer.schema(dimensions), use_dictionary=False)
        self._batches: list[tuple[list[str], Any, Any]] = []

    def add(self, uris: list[str], logits: Any, features: Any) -> None:
        self._batches.append((uris, logits, features))
        if len(self._batches) * BATCH >= ROWS_A_WRITE:
            self._write()

    def close(self) -> None:
        if self._batches:
            self._write()
        self._file.close()

    def _write(self) -> None:
        import numpy as np

        uris, logits, features = zip(*self._batches, strict=True)
        every = [uri for some in uris for uri in some]
        self._file.write_table(peer.table(every, np.concatenate(logits), np.concatenate(features)))
        self._batches = []


def work(number: int, options: Any, paths: list[str], counter: Any) -> None:
    """Runs a process, which takes the next eight paths until none are left."""
    import cv2
    import numpy as np

    cv2.setNumThreads(1)
    facts = peer.read_facts(options.prepared)
    model = LiteRtModel(options.prepared, facts)
    writer = Writer(Path(options.output) / f"part-{number}.parquet", facts.dimensions)
    images = np.empty((BATCH, facts.height, facts.width, 3), np.float32)
    while True:
        with counter.get_lock():
            start = counter.value
            counter.value += BATCH
        some = paths[start : start + BATCH]
        if not some:
            break
        for index, path in enumerate(some):
            with Path(path).open("rb", buffering=0) as file:
                pixels = peer.decode(file.read(), (facts.height, facts.width))
            np.multiply(pixels, np.float32(1 / 255), out=images[index])
        writer.add(some, *model(images[: len(some)]))
    writer.close()


def main() -> None:
    parser = peer.parser(__doc__)
    parser.add_argument("--processes", type=int, default=len(os.sched_getaffinity(0)))
    options = parser.parse_args()
    peer.empty_directory(options.output)
    paths = peer.read_list(options.input)
    context = multiprocessing.get_context("fork")
    counter = context.Value("l", 0)
    others = [
        context.Process(target=work, args=(number, options, paths, counter))
        for number in range(1, options.processes)
    ]
    for process in others:
        process.start()
    work(0, options, paths, counter)
    for process in others:
        process.join()
    if any(process.exitcode for process in others):
        raise SystemExit("a process failed")


if __name__ == "__main__":
    main()
