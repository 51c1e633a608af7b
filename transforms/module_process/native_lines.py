"""Filters native libraries' lines out of the standard error of the process that loads a module."""

from __future__ import annotations

import os
import threading
from collections import deque
from contextlib import suppress

from beamlabel.transforms.secrets.say import say
from beamlabel.transforms.worker.native_stderr import LOGGER, is_native

_KEPT_LINES = 50
_READ_BYTES = 1 << 16
_MOST_BYTES = 1 << 20


class NativeLines:
    """Reads a pipe in a thread: lines of native logs become debug records, all others go to stderr.

    Attributes:
      descriptor: the pipe's other end, for a child process.

    Raises:
      OSError, RuntimeError: the system has no more pipes or threads.
    """

    def __init__(self) -> None:
        self._read, self.descriptor = os.pipe()
        self._kept: deque[str] = deque(maxlen=_KEPT_LINES)
        self._thread = threading.Thread(target=self._pump, name="native-lines", daemon=True)
        try:
            self._thread.start()
        except BaseException:
            os.close(self._read)
            os.close(self.descriptor)
            raise

    def close_descriptor(self) -> None:
        """Closes this process's copy of the other end, so that the thread ends when the child closes its copy."""
        os.close(self.descriptor)

    def finish(self, seconds: float) -> None:
        """Waits for the rest of the output of a child that has ended: this process may end next."""
        self._thread.join(seconds)

    def replay(self, seconds: float) -> None:
        """Writes the last native lines to stderr: the child died, and the lines may explain it.

        Args:
          seconds: time to wait for the rest of the child's output.
        """
        self.finish(seconds)
        while self._kept:
            say(self._kept.popleft())

    def _pump(self) -> None:
        rest = b""
        with suppress(OSError):
            while data := os.read(self._read, _READ_BYTES):
                *lines, rest = (rest + data).split(b"\n")
                for line in lines:
                    self._take(line)
                if len(rest) > _MOST_BYTES:
                    self._take(rest)
                    rest = b""
        if rest:
            self._take(rest)
        os.close(self._read)

    def _take(self, data: bytes) -> None:
        line = data.decode(errors="backslashreplace").rstrip("\r")
        if is_native(line):
            self._kept.append(line)
            LOGGER.debug("%s", line)
        else:
            with suppress(Exception):  # the child would hang if nobody read the pipe
                say(line)
