"""The launcher's side of the process that loads a module; if a module hangs, crashes or exhausts memory, only that
process ends.

The two exchange nothing but JSON. The launcher opens and checks the files that the process makes: a module in the cache
or an artifact.
"""

from __future__ import annotations

import builtins
import json
import logging
import os
import select
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import wait
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar

from beamlabel.transforms.inference.artifact import ModuleError
from beamlabel.transforms.module_process.limits import Limits
from beamlabel.transforms.module_process.native_lines import NativeLines
from beamlabel.transforms.secrets.logs import get_logger
from beamlabel.transforms.storage import beam_setup
from beamlabel.transforms.storage.billing import billing_project
from beamlabel.transforms.worker.daemon_pool import DaemonPool
from beamlabel.transforms.worker.once import warn_once

T = TypeVar("T")

_SCRIPT = Path(__file__).with_name("child.py")
_READ_BYTES = 1 << 16
# Bytes per line of an answer: a module may have thousands of signatures; a longer line is not valid.
_MOST_BYTES = 64 << 20
_END_SECONDS = 5.0
_OUTPUT_SECONDS = 1.0
# Messages of Python, TensorFlow and C++ for a lack of memory.
_OUT_OF_MEMORY = ("MemoryError", "OOM when allocating", "bad_alloc", "Cannot allocate memory")


class _LateError(Exception):
    """The deadline has passed."""


class RemoteError(Exception):
    """A bug in beamlabel in the process that loads a module; the cause is the traceback from there, as text."""


class Child:
    """One process, and the two pipes that connect it to the launcher.

    Args:
      memory: limit in bytes; None: no limit.

    Raises:
      OSError: the system cannot start another process.
    """

    def __init__(self, memory: int | None) -> None:
        self.memory = memory
        self._unread = b""
        self._answers, theirs = os.pipe()
        self._native: NativeLines | None = None
        with suppress(OSError, RuntimeError):  # then its standard error is this process's
            self._native = NativeLines()
        try:
            self._process = subprocess.Popen(
                [sys.executable, str(_SCRIPT)],
                stdin=subprocess.PIPE,
                stderr=None if self._native is None else self._native.descriptor,
                pass_fds=(theirs,),
                # A process group of its own can be ended as a whole, and receives no Ctrl-C from a terminal.
                start_new_session=True,
            )
        except BaseException:
            os.close(self._answers)
            raise
        finally:
            os.close(theirs)
            if self._native is not None:
                self._native.close_descriptor()
        self._poll = select.poll()
        self._poll.register(self._answers, select.POLLIN)
        self.tell(
            path=sys.path,
            launcher=os.getpid(),
            answers=theirs,
            memory=memory,
            storage=beam_setup.words(),
            billing_project=billing_project(),
        )

    @property
    def is_alive(self) -> bool:
        """Whether the process is still running."""
        return self._process.poll() is None

    def tell(self, **words: Any) -> None:
        """Sends a message to the process."""
        stdin = self._process.stdin
        assert stdin is not None
        with suppress(OSError):  # the process has died; ``hear`` reports it
            stdin.write(json.dumps(words).encode() + b"\n")
            stdin.flush()

    def hear(self, until: float) -> dict[str, Any] | None:
        """The next message of the process; None if it has ended.

        Args:
          until: deadline by ``time.monotonic``.

        Raises:
          _LateError: no message arrives in time.
        """
        while b"\n" not in self._unread:
            left = until - time.monotonic()
            if left <= 0 or not self._poll.poll(left * 1e3):
                raise _LateError
            read = os.read(self._answers, _READ_BYTES)
            self._unread += read
            if not read or len(self._unread) > _MOST_BYTES:
                return None
        line, _, self._unread = self._unread.partition(b"\n")
        try:
            word = json.loads(line)
        except (ValueError, RecursionError):
            return None  # not a valid answer
        return word if isinstance(word, dict) else None

    def how_it_ended(self) -> str:
        """Describes how the process ended; ends it if it is still running."""
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(_END_SECONDS)
        code = self._process.poll()
        self.kill()
        if self._native is not None:
            self._native.replay(_END_SECONDS)
        if code is None:
            return "hung up"
        if code >= 0:
            return f"ended with exit code {code}"
        name = signal.Signals(-code).name if -code in signal.valid_signals() else str(-code)
        if -code in (signal.SIGKILL, signal.SIGABRT):
            return f"was ended by {name}, perhaps because memory ran out; {self.allowance}"
        return f"was ended by {name}; the module is damaged, or made to crash its reader"

    @property
    def allowance(self) -> str:
        """Describes the memory limit and how to raise it."""
        if self.memory is None:
            return "--module_memory limits its memory"
        return f"it may take {self.memory / 1e9:.1f} GB, see --module_memory"

    def kill(self) -> None:
        """Ends the process and everything it has started, at once."""
        with suppress(OSError):
            os.killpg(self._process.pid, signal.SIGKILL)
        with suppress(subprocess.TimeoutExpired):  # the process hangs in the kernel
            self._process.wait(_END_SECONDS)
        with suppress(OSError):
            if self._process.stdin is not None:
                self._process.stdin.close()
        if self._answers >= 0:
            self._poll.unregister(self._answers)
            os.close(self._answers)
            self._answers = -1
        if self._native is not None:
            self._native.finish(_OUTPUT_SECONDS)


class ModuleProcess:
    """Runs functions on a module in a separate process, which starts with the first call and ends with ``close``.

    The total time of all calls is limited. If the launcher's wait ends early, as by a signal, the process ends.

    Args:
      limits: limits on time and memory.
    """

    def __init__(self, limits: Limits | None = None) -> None:
        self._limits = limits or Limits()
        self._left = self._limits.seconds
        self._child: Child | None = None
        self._lock = threading.Lock()

    def __enter__(self) -> ModuleProcess:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Ends the process."""
        child, self._child = self._child, None
        if child is not None:
            child.kill()

    def call(self, function: str, subject: str, **arguments: Any) -> Any:
        """Runs a function in the process and returns its result.

        Args:
          function: ``MODULE:NAME``.
          subject: name of the processed object in messages, such as ``module HANDLE``.
          arguments: keyword arguments, as JSON values.

        Raises:
          ModuleError: from the function, or the deadline has passed, or the process died.
          OSError, RuntimeError, ValueError, ModuleNotFoundError: from the function.
          RemoteError: the function raised any other exception.
        """
        with self._lock, self._timed(subject) as until:
            child = self._alive()
            child.tell(function=function, arguments=arguments)
            while (word := child.hear(until)) is not None:
                if "log" in word:
                    _log(*word["log"])
                elif "error" in word:
                    raise self._error(subject, child, **word["error"])
                else:
                    return word["result"]
            self._child = None
            raise ModuleError(f"{subject}: the process that loads it {child.how_it_ended()}")

    def in_thread(self, function: Callable[[], T], subject: str) -> T:
        """Runs a function in a thread of this process within the remaining time, for waits on a network.

        Raises:
          ModuleError: the deadline has passed.
        """
        with self._lock, self._timed(subject) as until:
            pool = DaemonPool(1, "module")
            future = pool.submit(function)
            if not wait([future], max(0.0, until - time.monotonic())).done:
                raise _LateError
            pool.close()
            return pool.result(future)

    @contextmanager
    def _timed(self, subject: str) -> Iterator[float]:
        """Yields the deadline; ends the process if the deadline passes or the wait is interrupted."""
        begin = time.monotonic()
        try:
            yield begin + self._left
        except _LateError:
            self.close()
            raise ModuleError(
                f"{subject}: not resolved, loaded and compiled within {self._limits.seconds:g} s; raise "
                "--module_deadline to allow more"
            ) from None
        except BaseException as error:
            if not isinstance(error, Exception):
                self.close()
            raise
        finally:
            self._left = max(0.0, self._left - (time.monotonic() - begin))

    def _alive(self) -> Child:
        if self._child is None or not self._child.is_alive:
            self.close()
            self._child = Child(self._limits.bytes())
        return self._child

    def _error(self, subject: str, child: Child, kinds: list[str], message: str, traceback: str) -> Exception:
        """Turns the error of the remote function into an exception."""
        if kinds[0] == "MemoryError" or any(text in message for text in _OUT_OF_MEMORY):
            said = message if subject in message else f"{subject}: {message or 'out of memory'}"
            return ModuleError(f"{said}; {child.allowance}")
        if "ModuleError" in kinds:
            return ModuleError(message)
        for name in ("OSError", "ModuleNotFoundError", "ValueError", "RuntimeError"):
            if name in kinds:
                kind = next(one for one in kinds if hasattr(builtins, one))
                raised = getattr(builtins, kind)
                # UnicodeError and similar exceptions need more than one text.
                return _raised(raised, getattr(builtins, name), message)
        error = RemoteError(f"{subject}: {kinds[0]}: {message}")
        error.__cause__ = RemoteError(traceback)
        return error


def _raised(kind: type[Exception], fallback: type[Exception], message: str) -> Exception:
    try:
        return kind(message)
    except TypeError:
        return fallback(message)


def _log(name: str, level: int, message: str) -> None:
    logger = get_logger(name)
    if level == logging.WARNING:
        warn_once(logger, message)  # this process may give the same warning
    else:
        logger.log(level, "%s", message)
