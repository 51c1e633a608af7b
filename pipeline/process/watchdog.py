"""Ends the process after a signal, even if native code holds up the main thread.

Python runs signal handlers in the main thread, between two bytecode instructions, so not while that thread waits or
computes for minutes in a library. Python also writes the number of each signal into a pipe at once
(``signal.set_wakeup_fd``). A thread reads the pipe, gives the process some seconds to end by itself, and then ends it.
A second Ctrl-C ends the process at once.
"""

from __future__ import annotations

import os
import select
import signal
import threading
import time
import weakref
from collections.abc import Collection
from contextlib import suppress

from beamlabel.pipeline.process.children import kill_descendants
from beamlabel.transforms.secrets.printable import escaped
from beamlabel.transforms.worker.native_stderr import stderr_descriptor

GRACE_SECONDS = 4.0
"""Seconds from the signal to the end: orchestrators and people wait only a few seconds."""

# Seconds. A program that passes signals on may repeat a Ctrl-C that the terminal has already sent.
_DOUBLED_SECONDS = 0.2
# Seconds before the message about Ctrl-C: most processes end sooner.
_QUIET_SECONDS = 1.0
_LOOK_SECONDS = 0.25


class Watchdog:
    """Ends the process and its descendants if a signal did not, with 128 + the signal's number.

    Only the main thread may create or close a watchdog.

    Args:
      signals: signals to listen to.

    Attributes:
      last_words: line to write when ending the process, such as the resume command; empty: none.
    """

    def __init__(self, signals: Collection[int]) -> None:
        self.last_words = ""
        self._signals, self._grace = frozenset(signals), GRACE_SECONDS
        self._closed = threading.Event()
        self._extended_by = 0.0
        self._is_spared = False
        self._interrupted_at: float | None = None
        self._read, self._write = os.pipe()
        os.set_blocking(self._write, False)
        self._before = signal.set_wakeup_fd(self._write, warn_on_full_buffer=False)
        _made.add(self)
        threading.Thread(target=self._watch, name="watchdog", daemon=True).start()

    def extend(self, seconds: float) -> None:
        """Adds time for a step that must not be interrupted."""
        self._extended_by = max(self._extended_by, seconds)

    def spare(self) -> None:
        """Removes the time limit for the work after the signal; the next signal ends the process."""
        self._is_spared = True

    def close(self) -> None:
        """Stops watching."""
        self._closed.set()
        signal.set_wakeup_fd(self._before)
        os.close(self._write)  # ends the thread, which reads the other end

    def _watch(self) -> None:
        try:
            number = self._next_signal(None)
            while number and not self._is_over(number):
                number = self._next_signal(None)
        finally:
            os.close(self._read)
        if number:
            self._end(
                number, f"ended by {signal.Signals(number).name}: the current step did not stop by itself"
            )

    def _is_over(self, number: int) -> bool:
        """Waits until the grace time of a signal is over; False if the process may continue."""
        began, is_told = time.monotonic(), False
        while (left := began + self._grace + self._extended_by - time.monotonic()) > 0:
            self._next_signal(min(left, _LOOK_SECONDS))
            if self._closed.is_set():
                return False
            if self._is_spared:
                self._is_spared = False
                return False
            if not is_told and number == signal.SIGINT and time.monotonic() - began > _QUIET_SECONDS:
                is_told = True
                _say("stopping; press Ctrl-C again to end at once")
        return True

    def _next_signal(self, seconds: float | None) -> int:
        """The next signal within ``seconds`` (None: no limit), else 0. Ends the process at a second Ctrl-C."""
        poll = select.poll()
        poll.register(self._read, select.POLLIN)
        while poll.poll(None if seconds is None else seconds * 1e3) and (told := os.read(self._read, 1)):
            if told[0] not in self._signals or self._closed.is_set():
                continue
            if told[0] == signal.SIGINT and self._is_second():
                self._end(signal.SIGINT, "ended at once by a second Ctrl-C")
            return told[0]
        return 0

    def _is_second(self) -> bool:
        now = time.monotonic()
        if self._interrupted_at is None:
            self._interrupted_at = now
        return now - self._interrupted_at > _DOUBLED_SECONDS

    def _end(self, number: int, why: str) -> None:
        _say(why)
        if self._extended_by:
            _say("a job that was submitted elsewhere may still run there")
        if self.last_words:
            _say(self.last_words)
        kill_descendants()
        os._exit(128 + number)


def _say(text: str) -> None:
    """Writes a line to stderr if that does not block; on a terminal at the beginning of a line."""
    stderr = stderr_descriptor()
    poll = select.poll()
    poll.register(stderr, select.POLLOUT)
    with suppress(OSError):
        if poll.poll(0):
            start = "\r\x1b[K" if os.isatty(stderr) else ""
            os.write(stderr, f"{start}beamlabel: {escaped(text)}\n".encode(errors="backslashreplace"))


_made: weakref.WeakSet[Watchdog] = weakref.WeakSet()


def _forget_in_child() -> None:
    # A forked child would report its own signals to this process's watchdog.
    if _made:
        signal.set_wakeup_fd(-1)


os.register_at_fork(after_in_child=_forget_in_child)
