"""The standard error of the process that loads a module, without the lines that native libraries write as they start.

TensorFlow and its libraries write about missing GPUs and CPU features there, before any setting can keep them from it.
"""

from __future__ import annotations

import os
import re
import threading
from collections import deque
from contextlib import suppress

from beamlabel.transforms.secrets.logs import get_logger
from beamlabel.transforms.secrets.say import say

_LOGGER = get_logger("beamlabel.native")
# Lines of Abseil's and TensorFlow's C++ logs below FATAL, of TensorFlow Lite's, and those that follow them.
_NATIVE = re.compile(
    r"[IWE]\d{4} \d\d:\d\d:\d+[.:]\d"
    r"|\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d+: [IWE] "
    r"|WARNING: All log messages before absl::InitializeLog"
    r"|WARNING: Logging before "
    r"|To enable the following instructions: "
    r"|INFO: (?:Created|Initialized|Applying) "
)
_ERROR = re.compile(r"E\d{4} |\d{4}-\d\d-\d\d \S+: E ")
_KEPT_LINES = 50
_READ_BYTES = 1 << 16
_MOST_BYTES = 1 << 20


def is_native(line: str, *, errors: bool = True) -> bool:
    """Whether a line is of a native library's log, and not an error that ended the process.

    Args:
      line: of the standard error.
      errors: whether lines of the level ERROR count, too: without a GPU TensorFlow writes some as it starts.
    """
    return _NATIVE.match(line) is not None and (errors or not _ERROR.match(line))


class NativeLines:
    """Reads a pipe in a thread: lines of native logs become debug records, all others go to stderr.

    Attributes:
      descriptor: the pipe's other end, for a child process.

    Raises:
      OSError, RuntimeError: there are no more pipes or threads.
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
        """Closes this process's copy of the other end: the thread ends with the child's."""
        os.close(self.descriptor)

    def replay(self, seconds: float) -> None:
        """Writes the last native lines to stderr after all: the child died, and they may tell why.

        Args:
          seconds: that the rest of the child's output is waited for.
        """
        self._thread.join(seconds)
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
            _LOGGER.debug("%s", line)
        else:
            with suppress(OSError, ValueError):
                say(line)
