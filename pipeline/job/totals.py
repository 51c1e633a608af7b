"""How many references a run has: known of Parquet, estimated for text, counted for a listing, all in the background."""

from __future__ import annotations

import logging
import threading
import zlib
from concurrent.futures import ThreadPoolExecutor

from beamlabel.pipeline.job.label_job import LabelJob
from beamlabel.transforms import storage
from beamlabel.transforms.inputs.parquet_source import open_parquet
from beamlabel.transforms.inputs.text_source import GZIP_MAGIC, parse_line
from beamlabel.transforms.records import InputFile

_LOGGER = logging.getLogger("beamlabel")

_THREADS = 16
# Of a text file, from its start: the length of a line there stands for the rest.
_LOOKED_AT_BYTES = 1 << 18


class Total:
    """The number of references, as soon as it is known; a thread finds it out, so that nothing waits for it.

    Args:
      job: whose input counts. What its selection leaves out is counted as skipped, but for a run of failures,
        whose number is known.
    """

    def __init__(self, job: LabelJob) -> None:
        self._job = job
        self._value: int | None = None
        self._thread = threading.Thread(target=self._find, name="total", daemon=True)

    def start(self) -> None:
        """Begins to find out."""
        self._thread.start()

    def value(self) -> int | None:
        """The number, which may be an estimate; None while it is not known."""
        return self._value

    def _find(self) -> None:
        source = self._job.source
        if self._job.only_rows is not None:
            self._value = self._job.only_rows
            return
        try:
            with ThreadPoolExecutor(_THREADS) as threads:
                rows = sum(threads.map(references, self._job.files))
        except Exception as error:  # whoever plans the units will say what is wrong
            _LOGGER.debug("the total is not known: %s", error)
            return
        rows = round(rows * source.sample)
        self._value = rows if source.limit is None else min(rows, source.limit)


def references(file: InputFile) -> int:
    """How many references an input has, about.

    Raises:
      OSError, ValueError, zlib.error: it cannot be read.
    """
    if file.format == "parquet":
        with open_parquet(file.path) as parquet:
            return int(parquet.metadata.num_rows)
    if file.format == "images":
        return sum(1 for _ in storage.match(file.path))
    return _lines(file)


def _lines(file: InputFile) -> int:
    with storage.open_input(file.path) as raw:
        head = raw.read(_LOOKED_AT_BYTES)
    text, used = head, len(head)
    if head.startswith(GZIP_MAGIC):
        # 31: a gzip member, and no more than the first.
        stream = zlib.decompressobj(31)
        text = stream.decompress(head)
        used -= len(stream.unused_data)
    lines = sum(parse_line(line) is not None for line in text.splitlines(keepends=True))
    return round(lines * max(file.size or 0, used) / used) if used else 0
