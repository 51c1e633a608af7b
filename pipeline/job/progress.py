"""Shows the progress of a run: a bar on a terminal, a log line every 30 seconds elsewhere.

The numbers come from the workers' tally if the workers run in this process, else from the staging directory: from the
records of finished units, and from heartbeats for the others. Beam's metrics are of no use: the local runner reports
them at the end, Flink not while a bundle runs, and the portable runner repeats its first answer.
"""

from __future__ import annotations

import sys
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, nullcontext

from beamlabel.pipeline.job.label_job import LabelJob
from beamlabel.pipeline.job.totals import Total
from beamlabel.pipeline.process.terminal import columns, log_above_bar
from beamlabel.transforms import storage
from beamlabel.transforms.records import UnitRecord
from beamlabel.transforms.secrets.logs import get_logger
from beamlabel.transforms.shapes import parse
from beamlabel.transforms.worker import tally
from beamlabel.transforms.worker.tally import Tally
from beamlabel.transforms.writing import heartbeat

# Seconds between two log lines, and between two updates of a bar.
LINE_SECONDS = 30.0
_BAR_SECONDS = 0.5
# Seconds between two readings of the staging directory: each takes a listing, and a request per new record.
_STAGED_SECONDS = 10.0
_THREADS = 16
_STOP_SECONDS = 1.0

_LOGGER = get_logger("beamlabel")


class Source(ABC):
    """Reads the progress.

    Attributes:
      seconds: the shortest time between two readings.
    """

    seconds = _BAR_SECONDS

    @abstractmethod
    def look(self) -> Tally:
        """Counts the references done so far."""


class OwnProcess(Source):
    """Reads the tally of this process, counted from now."""

    def __init__(self) -> None:
        self._before = tally.total()

    def look(self) -> Tally:
        return tally.total() - self._before


class StagingDirectory(Source):
    """Reads records and heartbeats in a staging directory."""

    seconds = _STAGED_SECONDS

    def __init__(self, staging_dir: str) -> None:
        self._staging_dir = staging_dir
        self._finished: dict[str, Tally] = {}

    def look(self) -> Tally:
        records = [path for path in self._list("units") if _stem(path) not in self._finished]
        with ThreadPoolExecutor(_THREADS) as threads:
            for record in filter(None, threads.map(_read_record, records)):
                failed = sum(record.failed.values())
                self._finished[record.unit_id] = Tally(record.predicted, failed, record.skipped)
            beats = list(threads.map(_read_heartbeat, self._list(heartbeat.DIRECTORY)))
        started: dict[str, Tally] = {}
        for beat in beats:
            for unit, counts in beat.items():
                # If a unit was begun twice, the attempt that is further counts.
                if unit not in self._finished and counts.done >= started.get(unit, Tally()).done:
                    started[unit] = counts
        return sum([*self._finished.values(), *started.values()], Tally())

    def _list(self, directory: str) -> list[str]:
        pattern = storage.escape(storage.join(self._staging_dir, directory)) + "/"
        return [file.path for file in storage.match(pattern) if file.path.endswith(".json")]


def _stem(path: str) -> str:
    return path.rpartition("/")[2].removesuffix(".json")


def _read_record(path: str) -> UnitRecord | None:
    try:
        return UnitRecord.from_json(parse(storage.read_bytes(path)))
    except (OSError, ValueError):  # the next reading finds it
        return None


def _read_heartbeat(path: str) -> dict[str, Tally]:
    try:
        return heartbeat.read(storage.read_bytes(path))
    except OSError:
        return {}


class _Watcher:
    """Reads and shows the progress repeatedly, in a separate thread, until it is stopped.

    Its errors, and a storage that hangs, do not affect the run.
    """

    def __init__(self, source: Source, total: Total, seconds: float) -> None:
        self._source = source
        self._total = total
        self._seconds = max(seconds, source.seconds)
        self._over = threading.Event()
        self._shown = threading.Lock()
        self._thread = threading.Thread(target=self._watch, name="progress", daemon=True)

    def start(self) -> None:
        try:
            self._total.start()
            self._thread.start()
        except RuntimeError as error:  # the system has no more threads
            _LOGGER.warning("The progress cannot be shown: %s", error)

    def stop(self) -> None:
        """Stops showing the progress; waits a moment for a reading in progress."""
        self._over.set()
        if self._thread.ident is not None:
            self._thread.join(_STOP_SECONDS)
        if self._shown.acquire(timeout=_STOP_SECONDS):  # a terminal may hang, too
            try:
                self.close()
            finally:
                self._shown.release()

    def _watch(self) -> None:
        while not self._over.wait(self._seconds):
            self._look()
        self._look_last()

    def _look(self, *, last: bool = False) -> None:
        try:
            done = self._source.look()
            with self._shown:
                if last or not self._over.is_set():
                    self.show(done)
        except Exception as error:  # such as a staging directory that a publisher deletes meanwhile
            _LOGGER.debug("The progress was not read: %s", error)

    def _look_last(self) -> None:
        """Called once, after the last reading."""

    def show(self, done: Tally) -> None:
        """Shows the progress."""
        raise NotImplementedError

    def close(self) -> None:
        """Ends the display."""


class _Lines(_Watcher):
    """Writes a log line from time to time."""

    def __init__(self, source: Source, total: Total) -> None:
        super().__init__(source, total, LINE_SECONDS)
        self._last = (time.monotonic(), 0)

    def show(self, done: Tally) -> None:
        now = time.monotonic()
        then, before = self._last
        rate = (done.done - before) / max(now - then, 1e-3)
        self._last = now, done.done
        _LOGGER.info("%s", line(done, self._total.value(), rate))


def line(done: Tally, total: int | None, rate: float) -> str:
    """``12,000 of 50,000 images (24 %), 410/s, 3 failed, 0:01:33 left``; the total may be an estimate."""
    parts = [f"{done.done:,} images"]
    if total:
        parts = [f"{done.done:,} of {total:,} images ({min(100, 100 * done.done // total)} %)"]
    parts.append(f"{rate:.0f}/s")
    parts += [
        f"{count:,} {what}" for count, what in ((done.failed, "failed"), (done.skipped, "skipped")) if count
    ]
    if total and rate > 0 and total > done.done:
        minutes, seconds = divmod(round((total - done.done) / rate), 60)
        parts.append(f"{minutes // 60}:{minutes % 60:02}:{seconds:02} left")
    return ", ".join(parts)


class _Bar(_Watcher):
    """Shows a bar on the terminal."""

    def __init__(self, source: Source, total: Total) -> None:
        from tqdm import tqdm

        super().__init__(source, total, _BAR_SECONDS)
        self._is_closed = False
        self._bar = tqdm(unit=" images", smoothing=0.1, ncols=columns(), leave=False, file=sys.stderr)

    def show(self, done: Tally) -> None:
        if self._is_closed:
            return
        self._bar.total = self._total.value()
        self._bar.ncols = columns()  # the window may have changed its size
        self._bar.set_postfix(failed=done.failed, refresh=False)
        self._bar.update(done.done - self._bar.n)

    def close(self) -> None:
        self._is_closed = True
        self._bar.close()

    def _look_last(self) -> None:
        self._look(last=True)


@contextmanager
def shown(job: LabelJob, *, in_this_process: bool) -> Iterator[None]:
    """Shows the progress of a job while it runs.

    Args:
      job: the job.
      in_this_process: whether its workers are threads of this process.
    """
    source = OwnProcess() if in_this_process else StagingDirectory(job.staging_dir)
    is_terminal = sys.stderr.isatty()
    watcher = _Bar(source, Total(job)) if is_terminal else _Lines(source, Total(job))
    with log_above_bar() if is_terminal else nullcontext():
        try:
            watcher.start()
            yield
        finally:
            watcher.stop()
