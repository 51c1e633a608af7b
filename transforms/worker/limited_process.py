"""A child process that answers requests one by one, each with a deadline: at its end the child is killed.

For work that may take for ever, take all memory or crash. A deadline is of CPU time: on a machine that was suspended,
or that has much else to do, a child is killed by the clock after ten times as long, and not before.

The child is a Python of its own. It is not a fork of this process, which has threads; and no ``multiprocessing``, whose
daemons may have no children, and which imports the main program again. It ends with its parent: when its pipe closes,
or the parent's process is gone.

A request is the lengths of its words and its data (8 bytes each, big-endian), and these. The child sends frames: a kind
of one byte, the length (8 bytes), and the content. Nothing of it is unpickled: the child may be in the hands of whoever
wrote the image.
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
"""Kinds of frames: the child is there; it has the request; it waits for the lock; it has it; its answer; or the first
part of an answer, and the second one."""

# Of an interpreter that imports NumPy and OpenCV, on a machine that has much else to do.
_START_SECONDS = 120.0
# Of an answer's first part, which is some lines of JSON.
_MOST_BYTES = 1 << 20
_PIPE_BYTES = 1 << 20
# By what a deadline is longer by the clock on the wall than in CPU time.
_PATIENCE = 10.0
# The system's clock of a wait does not go on for ever.
_LOOK_SECONDS = 3600.0
_ENVIRONMENT = {
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    # glibc: what a request frees serves the next one, up to so many bytes; new pages cost more than the copies.
    "MALLOC_MMAP_THRESHOLD_": str(32 << 20),
    "MALLOC_TRIM_THRESHOLD_": str(64 << 20),
}


class OverdueError(Exception):
    """The child has used up its CPU time, or did not answer in ten times as long; it was killed."""


class ProcessDiedError(Exception):
    """The child ended before it answered.

    Attributes:
      begun: whether it had the request by then: if not, the request is not to blame.
    """

    def __init__(self, how: str, begun: bool) -> None:
        super().__init__(how)
        self.begun = begun


class LimitedProcess:
    """A child, for one thread at a time.

    Args:
      module: whose ``main()`` is the child, see ``limited_child``.

    Raises:
      OSError: the system starts no more processes.
      ProcessDiedError: it did not come up.
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
            with suppress(AttributeError, OSError):  # Linux; fewer turns between the processes
                fcntl.fcntl(descriptor, fcntl.F_SETPIPE_SZ, _PIPE_BYTES)
        self._begin(_START_SECONDS)
        try:
            self._expect(READY)
        except OverdueError:
            raise ProcessDiedError(f"did not come up within {_START_SECONDS:g} s", False) from None

    @property
    def pid(self) -> int:
        """Its number."""
        return self._process.pid

    @property
    def is_ready(self) -> bool:
        """Whether it has not ended, and has answered all that it was asked."""
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
          words, data: the request.
          seconds: of CPU time for it all, or ten times as long; time that the child waits for ``lock`` does not count.
          lock: what the child may ask for.
          held: what ``lock`` is entered in.

        Raises:
          OverdueError, ProcessDiedError: there will be no answer.
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
            waited = time.monotonic() - begin
            self._until += waited
            self._last += waited
            self._write(memoryview(HEAD.pack(GO, 0)))
            kind, length = self._head()
        if kind not in (ANSWER, PART) or length > _MOST_BYTES:
            raise self._end("answered what it should not")
        answer = bytearray(length)
        self._read(memoryview(answer))
        self._is_busy = kind == PART
        return bytes(answer)

    def read_content(self, target: memoryview) -> None:
        """Reads the second part of the answer, which has just the bytes of ``target``."""
        kind, length = self._head()
        if kind != CONTENT or length != len(target):
            raise self._end("answered what it should not")
        self._read(target)
        self._is_busy = False

    def close(self) -> None:
        """Ends it at once."""
        with suppress(OSError):
            self._process.kill()
        with suppress(subprocess.TimeoutExpired):  # it may hang in the kernel
            self._process.wait(5)
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                pipe.close()

    def forget(self) -> None:
        """In a forked process, to which it does not belong: closes the pipes and leaves it alone."""
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                pipe.close()
        self._process.returncode = 0  # else Python would warn of a child that is still running

    def _expect(self, kind: bytes) -> None:
        if self._head() != (kind, 0):
            raise self._end("answered what it should not")

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
        """The deadline is from now on."""
        now, used = time.monotonic(), _cpu_seconds(self.pid)
        self._until: float = now + seconds
        self._last: float = now + seconds * _PATIENCE
        self._cpu_until = None if used is None else used + seconds

    def _left(self) -> float:
        """Seconds within which the child will not be overdue."""
        now = time.monotonic()
        if now < self._until or self._cpu_until is None:
            return self._until - now
        used = _cpu_seconds(self.pid)
        return 0.0 if used is None else min(self._cpu_until - used, self._last - now)

    def _wait(self, descriptor: int, event: int) -> None:
        poll = select.poll()
        poll.register(descriptor, event)
        left = self._left()
        if left <= 0:
            self.close()
            raise OverdueError
        poll.poll(min(left, _LOOK_SECONDS) * 1e3)

    def _end(self, fault: str) -> Exception:
        """What became of a child that hung up, or is to be ended for a ``fault``."""
        if not fault:  # it is on its way out
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
    """CPU time of a process; None where the system does not tell.

    The number of its clock is that of clock_getcpuclockid(3) of Linux.
    """
    if sys.platform != "linux":
        return None
    try:
        return time.clock_gettime(~pid << 3 | 2)
    except OSError:
        return None


class LimitedProcesses:
    """Children of one kind, as many as there are threads that ask at a time, but for a limit.

    A child that has nothing to do ends after a while, see ``limited_child``.

    Args:
      module: see ``LimitedProcess``.
      most: children at a time; further threads wait.
    """

    def __init__(self, module: str, most: int) -> None:
        self._module = module
        self._places = threading.BoundedSemaphore(most)
        self._idle: list[LimitedProcess] = []

    def take(self, held: ExitStack) -> LimitedProcess:
        """A child that is there or a new one; when ``held`` ends, it goes back if it is ready.

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
        """Ends those that are idle."""
        while self._idle:
            self._idle.pop().close()

    def forget(self) -> None:
        """See ``LimitedProcess.forget``."""
        for child in self._idle:
            child.forget()

    def _give_back(self, child: LimitedProcess) -> None:
        if child.is_ready:
            self._idle.append(child)
        else:
            child.close()
