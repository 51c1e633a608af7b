"""The worker's side of the deadline: a second process watches its batches and ends this one if they hang.

A thread of the worker cannot do this: native code that hangs may hold Python's lock. See ``guard``.
"""

from __future__ import annotations

import itertools
import json
import logging
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import beamlabel
from beamlabel.transforms.records import LoadedImage
from beamlabel.transforms.secrets.logs import get_logger
from beamlabel.transforms.storage import beam_setup
from beamlabel.transforms.storage.billing import billing_project

EXIT_CODE = 3
"""The exit code of a process that ends because its batch hung."""

SECONDS_AN_IMAGE, LEAST_SECONDS = 10.0, 600.0
"""The default deadline of a batch; a module that takes 10 s for an image is of no use for a batch job."""

LEAST_SILENCE_SECONDS = 60.0
"""A worker process that is silent for less does not hang: it waits for a core or for memory."""

BEAT_SECONDS = 5.0
"""The interval of a worker process's signs of life."""

_SCRIPT = Path(__file__).with_name("guard.py")
_LOGGER = get_logger(__name__)


@dataclass(frozen=True)
class BatchDeadline:
    """The time limit of a batch, and the directory of the records of batches that hung.

    Attributes:
      directory: the directory of these records, see ``timeouts``.
      seconds: for a batch; None: ``SECONDS_AN_IMAGE`` for each image of it, at least ``LEAST_SECONDS``.
    """

    directory: str
    seconds: float | None = None

    def of(self, images: int) -> float:
        """The seconds for a batch of so many images."""
        return max(LEAST_SECONDS, SECONDS_AN_IMAGE * images) if self.seconds is None else self.seconds

    @property
    def silence(self) -> float:
        """The longest silence of a worker process between two batches, in seconds."""
        return max(LEAST_SILENCE_SECONDS, self.of(0))


class Watchdog:
    """The connection to this process's guard."""

    def __init__(self) -> None:
        self._numbers = itertools.count()
        self._directories: set[str] = set()
        self._lock = threading.Lock()
        self._guard: subprocess.Popen[bytes] | None = None
        # Replaced when a batch sets the deadline.
        self.silence = max(LEAST_SILENCE_SECONDS, LEAST_SECONDS)
        try:
            self._guard = subprocess.Popen(
                # Without the environment and site packages it is small and starts in milliseconds.
                [sys.executable, "-I", "-S", str(_SCRIPT)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                start_new_session=True,
            )
        except OSError as error:
            _LOGGER.warning(
                "cannot start the process that watches for batches that hang; --inference_deadline has no effect: %s",
                error,
            )
            return
        # A hook of site packages, which the guard does not load, may provide an editable installation.
        here = str(Path(beamlabel.__file__).parents[1])
        self._say(worker=os.getpid(), path=[*sys.path, here])
        threading.Thread(target=self._obey, name="watchdog", daemon=True).start()
        if os.environ.get("WORKER_ID"):
            # Beam sets it for all of its worker processes. A user may stop a launcher that computes itself.
            threading.Thread(target=self._beat, name="watchdog-beat", daemon=True).start()

    @contextmanager
    def watched(self, images: Sequence[LoadedImage], directory: str, seconds: float) -> Iterator[None]:
        """Watches the block, which computes a batch; without images, it opens the module."""
        if directory not in self._directories:
            self._directories.add(directory)
            self._say(directory=directory, storage=beam_setup.words(), billing_project=billing_project())
        units: dict[str, list[str]] = {}
        for image in images:
            units.setdefault(image.ref.unit_id or "", []).append(image.ref.ref_id)
        number = next(self._numbers)
        self._say(batch=number, directory=directory, seconds=seconds, units=units)
        try:
            yield
        finally:
            self._say(batch=number)

    def _say(self, **words: Any) -> None:
        if self._guard is None or self._guard.stdin is None:
            return
        line = json.dumps(words).encode() + b"\n"
        with self._lock, suppress(OSError):  # the guard was killed: nothing watches any more
            self._guard.stdin.write(line)
            self._guard.stdin.flush()

    def _beat(self) -> None:
        while True:
            self._say(silence=self.silence)
            time.sleep(BEAT_SECONDS)

    def _obey(self) -> None:
        assert self._guard is not None and self._guard.stdout is not None
        line = self._guard.stdout.readline()
        if line:
            end_process(json.loads(line)["seconds"])


def end_process(seconds: float) -> NoReturn:
    """Ends this process, whose batch hangs."""
    _LOGGER.error(
        "batch not done within %g s (--inference_deadline); ending this process and trying its images again (if this "
        "is the launcher, rerun with --if_exists resume); an image that hangs twice fails as inference_timeout",
        seconds,
    )
    with suppress(Exception):
        logging.shutdown()
    os._exit(EXIT_CODE)


_watchdog: Watchdog | None = None
_lock = threading.Lock()


@contextmanager
def watched(images: Sequence[LoadedImage], deadline: BatchDeadline | None) -> Iterator[None]:
    """Ends this process if the block takes too long; does nothing without a deadline.

    Args:
      images: the batch; empty while the module is opened.
      deadline: the time limit, and the directory of the records.
    """
    if deadline is None:
        yield
        return
    watchdog = _this_process()
    watchdog.silence = deadline.silence
    with watchdog.watched(images, deadline.directory, deadline.of(len(images))):
        yield


def watch_worker() -> None:
    """Ends this worker process if it stops or hangs with Python's lock, at any step.

    Requires ``WORKER_ID`` in the environment.
    """
    _this_process()


def _this_process() -> Watchdog:
    global _watchdog
    with _lock:
        if _watchdog is None:
            _watchdog = Watchdog()
        return _watchdog


def _forget() -> None:
    # A forked child has its own process id, and its parent's guard would watch the parent.
    global _watchdog, _lock
    _watchdog, _lock = None, threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)
