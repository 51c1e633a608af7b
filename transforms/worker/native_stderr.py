"""Removes the lines that native libraries write to stderr when they start.

TensorFlow, LiteRT and their libraries report missing GPUs and CPU features there before any setting can prevent it.
Such lines break a progress bar and hide important lines.
"""

from __future__ import annotations

import os
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from beamlabel.transforms.secrets.logs import get_logger

LOGGER = get_logger("beamlabel.native")
"""Takes native lines at the level DEBUG."""

# Lines of Abseil's and TensorFlow's C++ logs below FATAL, lines of TensorFlow Lite's log, and their continuations.
_NATIVE = re.compile(
    r"[IWE]\d{4} \d\d:\d\d:\d+[.:]\d"
    r"|\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d+: [IWE] "
    r"|WARNING: All log messages before absl::InitializeLog"
    r"|WARNING: Logging before "
    r"|To enable the following instructions: "
    r"|INFO: (?:Created|Initialized|Applying) "
)
_ERROR = re.compile(r"E\d{4} |\d{4}-\d\d-\d\d \S+ \S+ E ")


def is_native(line: str, *, errors: bool = True) -> bool:
    """Whether a line belongs to a native library's log, and is not an error that ended the process.

    Args:
      line: line of the standard error.
      errors: whether lines of level ERROR count: without a GPU, TensorFlow writes some when it starts.
    """
    return _NATIVE.match(line) is not None and (errors or not _ERROR.match(line))


_is_read = False
# Held by the thread that holds stderr back. If two did so and the first ended first, stderr would be lost for good.
_held = threading.Lock()
_descriptor = 2


def stderr_descriptor() -> int:
    """The descriptor of the real stderr, also while it is held back; for the last words of a process."""
    return _descriptor


def leave_native_lines() -> None:
    """Turns the filter off, since another process filters this one's stderr."""
    global _is_read
    _is_read = True


@contextmanager
def without_native_lines() -> Iterator[None]:
    """Holds stderr back while a library starts, then writes all lines except the native ones.

    If the block raises, the native lines are written, too. The last lines of a crash are lost, so use this only for
    steps that another process has done before, or that cannot crash. While another thread holds stderr back, does
    nothing.
    """
    if _is_read or not _held.acquire(blocking=False):
        yield
        return
    try:
        with _held_back():
            yield
    finally:
        _held.release()


@contextmanager
def _held_back() -> Iterator[None]:
    global _descriptor
    try:
        stderr, aside = os.dup(2), os.memfd_create("stderr")
    except (OSError, AttributeError):  # stderr is closed, or this is not Linux
        yield
        return
    has_failed = True
    try:
        os.dup2(aside, 2)
        _descriptor = stderr
        try:
            yield
            has_failed = False
        finally:
            os.dup2(stderr, 2)
            _descriptor = 2
            _write(os.pread(aside, os.fstat(aside).st_size, 0), stderr, all_lines=has_failed)
    finally:
        os.close(stderr)
        os.close(aside)


def _write(said: bytes, stderr: int, *, all_lines: bool) -> None:
    for line in said.splitlines(keepends=True):
        text = line.decode(errors="backslashreplace").strip()
        if is_native(text) and not all_lines:
            LOGGER.debug("%s", text)
        else:
            try:
                os.write(stderr, line)
            except OSError:  # stderr has no reader
                return
