"""The lock of an output on ``gs://``: an object that its holder renews.

A conditional request creates the object only if it does not exist. Its holder writes it again every 30 seconds. Another
run takes it over with a conditional request if it was not renewed for 5 minutes, or if its holder was a process of this
machine that has ended. The age of the lock is measured by the storage's clock alone: from the time when the object was
written to the ``Date`` of the response.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from concurrent.futures import Future

from beamlabel.pipeline.output.holder import (
    Lock,
    OutputLockedError,
    at_work,
    describe,
    holder_of,
    is_lock,
    name,
)
from beamlabel.pipeline.output.own_files import refuse
from beamlabel.pipeline.process.process_id import ProcessId
from beamlabel.transforms.secrets.logs import get_logger
from beamlabel.transforms.storage import gcs
from beamlabel.transforms.worker.daemon_pool import DaemonPool

RENEW_SECONDS = 30.0
STALE_SECONDS = 300.0

SURE_SECONDS = 240.0
"""Seconds after the sending of a renewal request during which the lock is certainly ours."""

# Seconds after which one renewal is not retried any more; the next renewal comes soon.
_RENEWAL_SECONDS = 45.0
_RELEASE_SECONDS = 2.0
_DELETE_SECONDS = 5.0

_LOGGER = get_logger("beamlabel")


class Lease(Lock):
    """A lock that a thread renews until it is released.

    Renewals run in a second thread, so that one that hangs does not hide the loss of the lock.

    Args:
      path: of the object.

    Raises:
      OutputLockedError: another run holds it.
      UsageError: the object is not ours.
      OSError: the storage cannot be reached.
    """

    def __init__(self, path: str) -> None:
        self._path = path
        self._content = describe(ProcessId.own())
        self._renewed_at, self._generation = _take(path, self._content)
        self._released = threading.Event()
        self._renewer = DaemonPool(1, "lock-renewal")
        self._thread = threading.Thread(target=self._keep, name="lock", daemon=True)
        try:
            self._thread.start()
        except BaseException:
            self._delete_generation(self._generation)
            raise

    def release(self) -> None:
        self._released.set()
        # A renewal that hangs is abandoned, and the lock becomes stale.
        self._thread.join(_RELEASE_SECONDS)
        if not self.is_lost and not self._thread.is_alive():
            self._delete()

    def check(self) -> None:
        """Checks the lock, which also counts as lost if it was not renewed for too long."""
        self.is_lost = self.is_lost or self._left() <= 0
        super().check()

    def _left(self) -> float:
        """Seconds for which the lock is certainly ours."""
        return self._renewed_at + SURE_SECONDS - _now()

    def _delete(self) -> None:
        deletion = DaemonPool(1, "lock-deletion")
        deletion.submit(self._delete_generation, self._generation)
        deletion.close(_DELETE_SECONDS)

    def _delete_generation(self, generation: int) -> None:
        try:
            gcs.delete_generation(self._path, generation, _DELETE_SECONDS)
        except OSError as error:
            _LOGGER.warning(
                "Could not delete the lock %s, which becomes stale by itself: %s", self._path, error
            )

    def _keep(self) -> None:
        try:
            self._renew_until_released()
        except BaseException:
            _LOGGER.exception("Cannot keep the lock %s", self._path)
            self._lose()

    def _renew_until_released(self) -> None:
        renewal: Future[bool] | None = None
        while not self._released.wait(max(min(RENEW_SECONDS, self._left()), 0.01)):
            if renewal is not None and renewal.done():
                if not self._renewer.result(renewal):
                    self._lose()
                    return
                renewal = None
            if self._left() <= 0:
                self._lose()
                return
            if renewal is None:
                renewal = self._begin_renewal()
        # A pending renewal would restore the lock after its deletion.
        if renewal is not None:
            self._renewer.result(renewal)

    def _begin_renewal(self) -> Future[bool] | None:
        try:
            return self._renewer.submit(self._renew)
        except RuntimeError as error:  # no more threads can be started
            _LOGGER.warning("Could not renew the lock %s: %s", self._path, error)
            return None

    def _lose(self) -> None:
        self.is_lost = True
        os.kill(os.getpid(), signal.SIGTERM)  # ends the run as an orchestrator would

    def _renew(self) -> bool:
        """Renews the lock; False if another run holds it."""
        try:
            begin = _now()
            deadline = max(min(_RENEWAL_SECONDS, self._left()), 1.0)
            generation = gcs.exchange(self._path, self._content, self._generation, deadline)
            if generation is not None:
                self._generation, self._renewed_at = generation, begin
                return True
            return self._is_still_ours()
        except OSError as error:
            _LOGGER.warning("Could not renew the lock %s: %s", self._path, error)
            return True

    def _is_still_ours(self) -> bool:
        """Whether one of our renewals wrote the lock, although its response was lost."""
        begin = _now()
        try:
            found = gcs.read_object(self._path)
        except FileNotFoundError:
            return False
        if found.data != self._content:
            return False
        self._generation = found.generation
        # A Date header has whole seconds.
        self._renewed_at = max(self._renewed_at, begin - max(found.read_at - found.updated_at, 0.0) - 1.0)
        return True


def _now() -> float:
    """Seconds of a clock that continues while a laptop or a virtual machine sleeps."""
    return time.clock_gettime(getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC))


def _take(path: str, content: bytes) -> tuple[float, int]:
    """Takes the lock; returns the time of the successful request, see ``_now``, and the object's generation."""
    while True:
        begin = _now()
        generation = gcs.exchange(path, content, 0)
        if generation is not None:
            return begin, generation
        try:
            found = gcs.read_object(path)
        except FileNotFoundError:
            continue  # released meanwhile
        if not is_lock(found.data):
            refuse(path)
        holder = holder_of(found.data)
        age = found.read_at - found.updated_at
        if age > STALE_SECONDS or (holder is not None and holder.has_exited()):
            begin = _now()
            generation = gcs.exchange(path, content, found.generation)
            if generation is not None:
                _LOGGER.warning("Took over the lock of a run that has ended: %s", name(holder))
                return begin, generation
        output = path.rpartition("/")[0].rpartition("/")[0]
        raise OutputLockedError(f"{at_work(output, holder)}, renewed {max(age, 0):.0f} s ago")
