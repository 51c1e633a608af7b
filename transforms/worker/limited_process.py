"""A child process that answers requests one by one, and is killed when it exceeds a deadline.

It runs code that may hang, exhaust memory or crash. The deadline is in CPU time; by the clock a child is killed only
after ten times as long, since the machine may be busy or have been suspended.

The child is a new Python process. It is not a fork, since this process has threads, and does not use
``multiprocessing``, whose daemons may have no children and which imports the main program again. It ends with its
parent: when its pipe closes or the parent's process ends.

A request is the lengths of its words and its data (8 bytes each, big-endian), then both. The child sends frames: a kind
of one byte, the length (8 bytes), and the content. Nothing is unpickled: a malicious image may control the child.
"""

from __future__ import annotations

import fcntl
import os
import select
import signal
import struct
import subprocess
import sys
import threading
import time
from contextlib import AbstractContextManager, ExitStack, suppress

HEAD, REQUEST = struct.Struct(">cQ"), struct.Struct(">QQ")
READY, BEGUN, WAITS, GO, ANSWER, PART, CONTENT = b"R", b"B", b"W", b"G", b"A", b"P", b"C"
"""Kinds of frames: the child is ready; it has received the request; it waits for the lock; it has the lock; its answer;
or the first part of an answer, and the second part."""

# For an interpreter that imports NumPy and OpenCV on a busy machine.
_START_SECONDS = 120.0
# Limit of an answer's first part, which is some lines of JSON.
_MOST_BYTES = 1 << 20
_PIPE_BYTES = 1 << 20
# The factor from a deadline in CPU time to one in wall-clock time.
_PATIENCE = 10.0
# The longest time between two looks at the child. If this process looks so much later, it was stopped, by Ctrl-Z or in
# a paused container or machine, and so was the child.
_LOOK_SECONDS, _OVERSLEPT_SECONDS = 1.0, 5.0
_ENVIRONMENT = {
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    # glibc: reuse freed memory up to this size for the next request; new pages cost more than the copies.
    "MALLOC_MMAP_THRESHOLD_": str(32 << 20),
    "MALLOC_TRIM_THRESHOLD_": str(64 << 20),
}


class OverdueError(Exception):
    """The child used up its CPU time, or did not answer within ten times as long, and was killed."""


class ProcessDiedError(Exception):
    """The child ended before it answered.

    Attributes:
      begun: whether it had received the request; if not, the request is not to blame.
    """

    def __init__(self, how: str, begun: bool) -> None:
        super().__init__(how)
        self.begun = begun


class LimitedProcess:
    """A child, for one thread at a time.

    Args:
      module: whose ``main()`` the child runs, see ``limited_child``.

    Raises:
      OSError: The system starts no more processes.
      ProcessDiedError: The child did not start.
    """

    def __init__(self, module: str) -> None:
        paths = [path for path in sys.path if isinstance(path, str)]
        code = f"import sys; sys.path[:] = {paths!r}; from {module} import main; main({os.getpid()})"
        self._process = subprocess.Popen(
            [sys.executable, "-c", code],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env={**os.environ, **_ENVIRONMENT},
            bufsize=0,
        )
        assert self._process.stdin is not None and self._process.stdout is not None
        self._to, self._from = self._process.stdin.fileno(), self._process.stdout.fileno()
        self._begun = self._is_busy = False
        for descriptor in (self._to, self._from):
            os.set_blocking(descriptor, False)
            with suppress(AttributeError, OSError):  # Linux; saves context switches
                fcntl.fcntl(descriptor, fcntl.F_SETPIPE_SZ, _PIPE_BYTES)
        self._begin(_START_SECONDS)
        try:
            self._expect(READY)
        except OverdueError:
            raise ProcessDiedError(f"did not start within {_START_SECONDS:g} s", False) from None

    @property
    def pid(self) -> int:
        """The process ID."""
        return self._process.pid

    @property
    def is_ready(self) -> bool:
        """Whether it is alive and has answered every request."""
        return not self._is_busy and self._process.poll() is None

    def ask(
        self,
        words: bytes,
        data: bytes,
        seconds: float,
        lock: AbstractContextManager[object],
        held: ExitStack,
    ) -> bytes:
        """Sends a request and waits for the first part of the answer.

        Args:
          words, data: of the request.
          seconds: limit of CPU time; by the clock ten times as long. Waits for ``lock`` do not count.
          lock: that the child may request.
          held: stack in which ``lock`` is entered.

        Raises:
          OverdueError, ProcessDiedError: There will be no answer.
        """
        self._begun, self._is_busy = False, True
        self._begin(seconds)
        for part in (REQUEST.pack(len(words), len(data)), words, data):
            self._write(memoryview(part))
        self._expect(BEGUN)
        self._begun = True
        kind, length = self._head()
        if kind == WAITS:
            begin = time.monotonic()
            held.enter_context(lock)
            self._looked = time.monotonic()
            self._extend(self._looked - begin)
            self._write(memoryview(HEAD.pack(GO, 0)))
            kind, length = self._head()
        if kind not in (ANSWER, PART) or length > _MOST_BYTES:
            raise self._end("sent an invalid answer")
        answer = bytearray(length)
        self._read(memoryview(answer))
        self._is_busy = kind == PART
        return bytes(answer)

    def read_content(self, target: memoryview) -> None:
        """Reads the second part of the answer, which has exactly the size of ``target``."""
        kind, length = self._head()
        if kind != CONTENT or length != len(target):
            raise self._end("sent an invalid answer")
        self._read(target)
        self._is_busy = False

    def close(self) -> None:
        """Kills the child."""
        with suppress(OSError):
            self._process.kill()
        with suppress(subprocess.TimeoutExpired):  # it may hang in the kernel
            self._process.wait(5)
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                pipe.close()

    def forget(self) -> None:
        """Closes the pipes in a forked process, and leaves the child to the parent."""
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                pipe.close()
        self._process.returncode = 0  # else Python would warn of a running child

    def _expect(self, kind: bytes) -> None:
        if self._head() != (kind, 0):
            raise self._end("sent an invalid answer")

    def _head(self) -> tuple[bytes, int]:
        head = bytearray(HEAD.size)
        self._read(memoryview(head))
        kind, length = HEAD.unpack(head)
        return kind, length

    def _read(self, target: memoryview) -> None:
        while len(target):
            try:
                count = os.readv(self._from, [target])
            except BlockingIOError:
                self._wait(self._from, select.POLLIN)
                continue
            if not count:
                raise self._end("")
            target = target[count:]

    def _write(self, source: memoryview) -> None:
        while len(source):
            try:
                source = source[os.write(self._to, source) :]
            except BlockingIOError:
                self._wait(self._to, select.POLLOUT)
            except BrokenPipeError:
                raise self._end("") from None

    def _begin(self, seconds: float) -> None:
        """Starts the deadline."""
        now, used = time.monotonic(), _cpu_seconds(self.pid)
        self._looked = now
        self._until: float = now + seconds
        self._last: float = now + seconds * _PATIENCE
        self._cpu_until = None if used is None else used + seconds

    def _left(self) -> float:
        """The seconds for which the child cannot become overdue."""
        now = time.monotonic()
        if now < self._until or self._cpu_until is None:
            return self._until - now
        used = _cpu_seconds(self.pid)
        return 0.0 if used is None else min(self._cpu_until - used, self._last - now)

    def _extend(self, seconds: float) -> None:
        """Moves the deadline, except that of CPU time."""
        self._until += seconds
        self._last += seconds

    def _wait(self, descriptor: int, event: int) -> None:
        now = time.monotonic()
        overslept, self._looked = now - self._looked - _LOOK_SECONDS, now
        if overslept > _OVERSLEPT_SECONDS:
            self._extend(overslept)
        poll = select.poll()
        poll.register(descriptor, event)
        left = self._left()
        if left <= 0:
            self.close()
            raise OverdueError
        poll.poll(min(left, _LOOK_SECONDS) * 1e3)

    def _end(self, fault: str) -> Exception:
        """Ends a child, and returns the error: ``fault``, or the cause of its end."""
        if not fault:  # it is ending
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(5)
        self.close()
        code = self._process.returncode
        if not fault and code == -signal.SIGXCPU:
            return OverdueError()
        if not fault and code is not None and code < 0:
            name = signal.Signals(-code).name if -code in signal.valid_signals() else str(-code)
            fault = f"was killed by {name}"
        return ProcessDiedError(fault or f"ended with exit code {code}", self._begun)


def _cpu_seconds(pid: int) -> float | None:
    """The CPU time of a process, in seconds; None if the system does not report it.

    The clock's number is that of clock_getcpuclockid(3) on Linux.
    """
    if sys.platform != "linux":
        return None
    try:
        return time.clock_gettime(~pid << 3 | 2)
    except OSError:
        return None


class LimitedProcesses:
    """A pool of children, one for each thread that makes a request, up to a limit.

    An idle child ends after a while, see ``limited_child``.

    Args:
      module: see ``LimitedProcess``.
      most: children at a time; further threads wait.
    """

    def __init__(self, module: str, most: int) -> None:
        self._module = module
        self._places = threading.BoundedSemaphore(most)
        self._idle: list[LimitedProcess] = []

    def take(self, held: ExitStack) -> LimitedProcess:
        """Takes an idle child or a new one; when ``held`` exits, it is returned if it is ready.

        Raises:
          OSError, ProcessDiedError: see ``LimitedProcess``.
        """
        held.enter_context(self._places)
        child = None
        while self._idle and child is None:
            try:
                found = self._idle.pop()
            except IndexError:  # another thread was faster
                break
            if found.is_ready:
                child = found
            else:
                found.close()
        if child is None:
            child = LimitedProcess(self._module)
        held.callback(self._give_back, child)
        return child

    def close(self) -> None:
        """Kills the idle children."""
        while self._idle:
            self._idle.pop().close()

    def forget(self) -> None:
        """Forgets the children, see ``LimitedProcess.forget``."""
        for child in self._idle:
            child.forget()

    def _give_back(self, child: LimitedProcess) -> None:
        if child.is_ready:
            self._idle.append(child)
        else:
            child.close()
