"""Standard streams that may be closed, full, or without a reader."""

from __future__ import annotations

import io
import os
import select
import signal
import sys
from contextlib import suppress
from typing import Any

# The exit status of a program that SIGPIPE ends.
NO_READER = 128 + signal.SIGPIPE


class StdoutError(Exception):
    """The answer cannot be written. The text is empty if the reader has closed the pipe, as ``| head`` does.

    Attributes:
      exit_code: exit code of the process.
    """

    def __init__(self, text: str, exit_code: int) -> None:
        super().__init__(text)
        self.exit_code = exit_code


class _Stderr(io.FileIO):
    """Drops text that cannot be written: messages must not fail the work."""

    def write(self, data: Any) -> int:
        left = memoryview(data).cast("B")
        size = len(left)
        with suppress(OSError):
            while left:
                written = super().write(left)
                if written is None:  # a terminal in non-blocking mode
                    if not select.select([], [self], [], 1.0)[1]:
                        break
                    continue
                left = left[written:]
        return size


_was_closed = False


def prepare() -> None:
    """Opens closed standard streams: a file opened later would get the descriptor of one, and its messages.

    A stream that was closed then reads and writes nothing; ``check_stdout`` reports a closed stdout. Text that stderr
    cannot take is dropped. Characters that the encoding of stdout lacks are escaped.
    """
    global _was_closed
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            # The system assigns the lowest free descriptor, which is this one.
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)
    if sys.stdin is None:
        sys.stdin = open(0, encoding="utf-8", closefd=False)  # noqa: SIM115 (of a descriptor, for good)
    if sys.stdout is None:
        _was_closed = True
        sys.stdout = open(1, "w", encoding="utf-8", closefd=False)  # noqa: SIM115
    encoding = sys.stderr.encoding if sys.stderr is not None else "utf-8"
    raw = _Stderr(2, "w", closefd=False)
    # TextIOWrapper accepts a raw stream, too; it writes text at once.
    sys.stderr = io.TextIOWrapper(raw, encoding, "backslashreplace", write_through=True)  # type: ignore[arg-type]
    with suppress(AttributeError):
        sys.stdout.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]


def check_stdout() -> None:
    """Checks that stdout takes an answer, before the work for it.

    Raises:
      StdoutError: stdout is closed or full, or its reader is gone.
    """
    _check_open()
    try:
        number = sys.stdout.fileno()
        os.write(number, b"")
    except (OSError, ValueError, AttributeError) as error:
        if isinstance(error, OSError) and not isinstance(error, io.UnsupportedOperation):
            raise _told(error) from error
        return  # not a file, such as a stream of a test
    poll = select.poll()
    poll.register(number, 0)
    if any(events & select.POLLERR for _, events in poll.poll(0)):
        raise StdoutError("stdout has no reader", NO_READER)


def write_stdout(text: str) -> None:
    """Writes a text to stdout and flushes it.

    Raises:
      StdoutError: the text cannot be written.
    """
    _check_open()
    try:
        sys.stdout.write(text)
        sys.stdout.flush()
    except OSError as error:
        # The interpreter flushes stdout again when it ends.
        with suppress(OSError, ValueError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        raise _told(error) from error


def _check_open() -> None:
    if _was_closed:
        raise StdoutError("stdout is closed, but the answer goes there", 2)


def _told(error: OSError) -> StdoutError:
    if isinstance(error, BrokenPipeError):
        return StdoutError("", NO_READER)
    return StdoutError(f"stdout: {error.strerror or error}", 3)
