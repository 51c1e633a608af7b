"""SIGINT and SIGTERM: how a run ends that somebody wants to end."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from beamlabel.pipeline.process.watchdog import Watchdog

_SIGNALS = (signal.SIGINT, signal.SIGTERM)
# A job that was handed over to a cluster would go on there: the launcher has to learn its name, and to cancel it.
_HAND_OVER_SECONDS = 30.0


class Cancelled(BaseException):
    """Raised in the main thread by SIGINT and SIGTERM.

    Not an ``Exception``, so that nothing between here and the signal swallows it by catching those.
    """

    def __init__(self, signal_number: int, watchdog: Watchdog) -> None:
        super().__init__(signal.Signals(signal_number).name)
        self.exit_code = 128 + signal_number
        self._watchdog = watchdog

    def ends_work(self) -> bool:
        """Whether what there is, is not to be finished; if it is, as by Ctrl-C, that may take its time."""
        if self.exit_code != 128 + signal.SIGINT:
            return True
        self._watchdog.spare()
        return False


class Cancellation:
    """What the signals did so far.

    Attributes:
      seen: the first signal, as the exception that it raised or will raise; None before.
    """

    def __init__(self, watchdog: Watchdog) -> None:
        self.seen: Cancelled | None = None
        self._deferred = False
        self._watchdog = watchdog

    def handle(self, number: int, frame: FrameType | None) -> None:
        """Raises for the first signal; the next must not cut short what it started, but for a hand-over."""
        is_first = self.seen is None
        self.seen = self.seen or Cancelled(number, self._watchdog)
        if is_first != self._deferred:
            raise self.seen

    def install(self) -> None:
        """Makes the signals ours; also after somebody else took them."""
        for number in _SIGNALS:
            signal.signal(number, self.handle)

    @contextmanager
    def deferred(self) -> Iterator[None]:
        """While a job is handed over, which lasts seconds: who is interrupted there does not know what to cancel.

        From then on the process has 30 seconds more to end, since the job has to be cancelled first.

        Raises:
          Cancelled: by whoever calls ``check`` next, for a signal that came meanwhile.
        """
        self._deferred = True
        self._watchdog.extend(_HAND_OVER_SECONDS)
        try:
            yield
        finally:
            self._deferred = False
            self.install()  # Beam's job servers take SIGINT, and stop at it with the job still running

    def check(self) -> None:
        """Raises what a deferred signal did not."""
        if self.seen is not None:
            raise self.seen


@contextmanager
def cancellation() -> Iterator[Cancellation]:
    """Catches SIGINT and SIGTERM; whatever holds the process up then, it ends within ``watchdog.GRACE_SECONDS``.

    What it yields is the truth: an exception that is raised inside Beam surfaces as a ``RuntimeError``.
    """
    before = {number: signal.getsignal(number) for number in _SIGNALS}
    watchdog = Watchdog(_SIGNALS)
    try:
        caught = Cancellation(watchdog)
        caught.install()
        yield caught
    finally:
        for number, previous in before.items():
            signal.signal(number, previous)
        watchdog.close()
