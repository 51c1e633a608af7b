"""After a signal the process ends, whatever holds it up.

Python's handlers run in the main thread, between two steps of Python: not while that thread is within a library that
waits or computes for minutes. The system tells the number of each signal in a pipe as well (``signal.set_wakeup_fd``);
a thread reads it there, gives the rest of the process some time to end by itself, and then ends it.
"""

from __future__ import annotations

import os
import select
import signal
import threading
import time
import weakref
from collections.abc import Collection

from beamlabel.pipeline.process.children import kill_descendants

GRACE_SECONDS = 4.0
"""From the signal on: orchestrators, and people, wait no longer than some seconds for a process to end."""


class Watchdog:
    """Ends the process that a signal did not end, with 128 + the signal, and the processes below it.

    Only the main thread may make or close one.

    Args:
      signals: that it listens to.
    """

    def __init__(self, signals: Collection[int]) -> None:
        self._signals, self._grace = frozenset(signals), GRACE_SECONDS
        self._closed = threading.Event()
        self._extended_by = 0.0
        self._is_spared = False
        self._read, self._write = os.pipe()
        os.set_blocking(self._write, False)
        self._before = signal.set_wakeup_fd(self._write, warn_on_full_buffer=False)
        _made.add(self)
        threading.Thread(target=self._watch, name="watchdog", daemon=True).start()

    def extend(self, seconds: float) -> None:
        """Gives more time, for what must not be cut short."""
        self._extended_by = max(self._extended_by, seconds)

    def spare(self) -> None:
        """What the signal asked for takes its time; the next signal ends the process."""
        self._is_spared = True

    def close(self) -> None:
        """Nothing more is ended."""
        self._closed.set()
        signal.set_wakeup_fd(self._before)
        os.close(self._write)  # which ends the thread's reading

    def _watch(self) -> None:
        try:
            number = self._next_signal()
            while number is not None and not self._is_over():
                number = self._next_signal()
        finally:
            os.close(self._read)
        if number is None:
            return
        _say(f"ended by {signal.Signals(number).name}: what it was doing did not stop by itself\n")
        kill_descendants()
        os._exit(128 + number)

    def _is_over(self) -> bool:
        """Waits until the time since a signal is over; False if that was not to be waited for."""
        began = time.monotonic()
        while (left := began + self._grace + self._extended_by - time.monotonic()) > 0:
            if self._closed.wait(min(left, 0.5)):
                return False
            if self._is_spared:
                self._is_spared = False
                return False
        return True

    def _next_signal(self) -> int | None:
        while told := os.read(self._read, 1):
            if told[0] in self._signals:
                return None if self._closed.is_set() else told[0]
        return None


def _say(text: str) -> None:
    """On stderr, if it takes that at once."""
    if select.select([], [2], [], 0)[1]:
        try:
            os.write(2, f"beamlabel: {text}".encode())
        except OSError:
            return


_made: weakref.WeakSet[Watchdog] = weakref.WeakSet()


def _forget_in_child() -> None:
    # A child of a fork would tell this process's watchdog of the child's own signals.
    if _made:
        signal.set_wakeup_fd(-1)


os.register_at_fork(after_in_child=_forget_in_child)
