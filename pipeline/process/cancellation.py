"""SIGINT, SIGTERM and SIGHUP end a run: the first lets it clean up, and a second Ctrl-C ends the process at once.

``nohup`` makes a process ignore SIGHUP, which comes when its terminal is closed.
"""

from __future__ import annotations

import signal
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from types import FrameType

from beamlabel.pipeline.process.watchdog import Watchdog

# Seconds. A submitted job continues on the cluster: the launcher has to learn the job's name and cancel it.
_HAND_OVER_SECONDS = 30.0


class Cancelled(BaseException):
    """Raised in the main thread by a signal.

    It is not an ``Exception``, so that ``except Exception`` does not swallow it.
    """

    def __init__(self, signal_number: int, watchdog: Watchdog) -> None:
        super().__init__(signal.Signals(signal_number).name)
        self.exit_code = 128 + signal_number
        self._watchdog = watchdog

    def ends_work(self) -> bool:
        """Whether to drop the work; after Ctrl-C the process gets the time to finish it."""
        if self.exit_code != 128 + signal.SIGINT:
            return True
        self._watchdog.spare()
        return False


class Cancellation:
    """The signals so far.

    Attributes:
      seen: the first signal, as its exception, raised or not yet raised; None: no signal so far.
    """

    def __init__(self, watchdog: Watchdog, signals: Collection[int]) -> None:
        self.seen: Cancelled | None = None
        self._deferred = False
        self._watchdog = watchdog
        self._signals = signals

    def handle(self, number: int, frame: FrameType | None) -> None:
        """Raises for the first signal. Later signals must not interrupt the cleanup, but may interrupt a submission.

        A second Ctrl-C comes here, too, unless the watchdog has already ended the process.
        """
        is_first = self.seen is None
        self.seen = self.seen or Cancelled(number, self._watchdog)
        if is_first != self._deferred:
            raise self.seen

    def install(self) -> None:
        """Installs the signal handlers, or installs them again after a library has replaced them."""
        for number in self._signals:
            signal.signal(number, self.handle)

    def on_end_say(self, text: str) -> None:
        """Sets the line that the watchdog writes if it ends the process, such as the resume command."""
        self._watchdog.last_words = text

    @contextmanager
    def deferred(self) -> Iterator[None]:
        """Holds signals back for the seconds that submitting a job takes, since it has a name only afterwards.

        The process then has 30 more seconds to end, since it has to cancel the job first.

        Raises:
          Cancelled: a signal arrived meanwhile; raised by the next call of ``check``.
        """
        self._deferred = True
        self._watchdog.extend(_HAND_OVER_SECONDS)
        try:
            yield
        finally:
            self._deferred = False
            self.install()  # Beam's job servers handle SIGINT, and stop on it while the job still runs

    def check(self) -> None:
        """Raises for a signal that was held back."""
        if self.seen is not None:
            raise self.seen


@contextmanager
def cancellation() -> Iterator[Cancellation]:
    """Catches the signals; the process then ends within ``watchdog.GRACE_SECONDS``, even if a step hangs.

    Check the yielded object for a signal: an exception that is raised inside Beam surfaces as a
    ``RuntimeError``.
    """
    signals = [signal.SIGINT, signal.SIGTERM]
    if signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:
        signals.append(signal.SIGHUP)
    before = {number: signal.getsignal(number) for number in signals}
    watchdog = Watchdog(signals)
    try:
        caught = Cancellation(watchdog, signals)
        caught.install()
        yield caught
    finally:
        for number, previous in before.items():
            signal.signal(number, previous)
        watchdog.close()
