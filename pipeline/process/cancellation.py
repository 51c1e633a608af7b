"""SIGINT and SIGTERM end a run: the first lets it clean up, a second Ctrl-C ends the process at once."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from beamlabel.pipeline.process.watchdog import Watchdog

_SIGNALS = (signal.SIGINT, signal.SIGTERM)
# A job that was handed over to a cluster would go on there: the launcher has to get its name, and to cancel it.
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
        """Whether to drop the work; Ctrl-C has it finished, and the process gets the time for that."""
        if self.exit_code != 128 + signal.SIGINT:
            return True
        self._watchdog.spare()
        return False


class Cancellation:
    """The signals so far.

    Attributes:
      seen: the first signal, as the exception that it raised or will raise; None before.
    """

    def __init__(self, watchdog: Watchdog) -> None:
        self.seen: Cancelled | None = None
        self._deferred = False
        self._watchdog = watchdog

    def handle(self, number: int, frame: FrameType | None) -> None:
        """Raises for the first signal. The next must not cut short the clean-up, but may a hand-over.

        A second Ctrl-C gets here, too, unless the watchdog has ended the process before.
        """
        is_first = self.seen is None
        self.seen = self.seen or Cancelled(number, self._watchdog)
        if is_first != self._deferred:
            raise self.seen

    def install(self) -> None:
        """Takes the signals; also back from a library that has taken them."""
        for number in _SIGNALS:
            signal.signal(number, self.handle)

    def on_end_say(self, text: str) -> None:
        """Has the watchdog write a line if it ends the process, such as the command that resumes."""
        self._watchdog.last_words = text

    @contextmanager
    def deferred(self) -> Iterator[None]:
        """Holds signals back while a job is handed over, which lasts seconds: only then its name is known.

        From then on the process has 30 more seconds to end, since the job has to be cancelled first.

        Raises:
          Cancelled: at the next call of ``check``, for a signal that came meanwhile.
        """
        self._deferred = True
        self._watchdog.extend(_HAND_OVER_SECONDS)
        try:
            yield
        finally:
            self._deferred = False
            self.install()  # Beam's job servers take SIGINT, and stop at it with the job still running

    def check(self) -> None:
        """Raises for a signal that was held back."""
        if self.seen is not None:
            raise self.seen


@contextmanager
def cancellation() -> Iterator[Cancellation]:
    """Catches SIGINT and SIGTERM; the process ends within ``watchdog.GRACE_SECONDS`` then, whatever holds it up.

    Ask the yielded object whether there was a signal: an exception that is raised inside Beam surfaces as a
    ``RuntimeError``.
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
