"""Counts the references of a run in the background: exact for Parquet and listings, estimated for text."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

from beamlabel.pipeline.job.label_job import LabelJob
from beamlabel.transforms.inputs.sources.registry import source_of
from beamlabel.transforms.inputs.sources.source import SourceOptions
from beamlabel.transforms.records import InputFile
from beamlabel.transforms.secrets.logs import get_logger

_LOGGER = get_logger("beamlabel")

_THREADS = 16


class Total:
    """The number of references, counted in a thread so that nothing waits for it.

    Args:
      job: its input is counted. References outside its selection count as skipped, except in a run of failures, whose
        number is known.
    """

    def __init__(self, job: LabelJob) -> None:
        self._job = job
        self._value: int | None = None
        self._thread = threading.Thread(target=self._find, name="total", daemon=True)

    def start(self) -> None:
        """Starts to count."""
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
                rows = sum(threads.map(lambda file: references(file, source), self._job.files))
        except Exception as error:  # the planning of the units reports the same error
            _LOGGER.debug("The total is unknown: %s", error)
            return
        rows = round(rows * source.sample)
        self._value = rows if source.limit is None else min(rows, source.limit)


def references(file: InputFile, options: SourceOptions) -> int:
    """The approximate number of references of an input.

    Raises:
      OSError, ValueError: it cannot be read.
    """
    return source_of(file.format).estimate(file, options)
