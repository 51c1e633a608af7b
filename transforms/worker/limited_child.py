"""The child's side of ``limited_process``."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import threading
import time
from collections.abc import Callable
from typing import Any

from beamlabel.transforms.worker.limited_process import (
    ANSWER,
    BEGUN,
    CONTENT,
    GO,
    HEAD,
    PART,
    READY,
    REQUEST,
    WAITS,
)

try:
    import resource
except ImportError:  # not on Windows
    resource = None  # type: ignore[assignment]

_IDLE_SECONDS = 60
_PAGE = os.sysconf("SC_PAGE_SIZE") if hasattr(os, "sysconf") else 4096


class Requests:
    """The pipes of a child. Output of libraries to either stream is discarded.

    Args:
      parent: process ID of the parent; the child ends with it.
    """

    def __init__(self, parent: int) -> None:
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal signals all processes; the parent decides
        nowhere = os.open(os.devnull, os.O_RDWR)
        self._from, self._to = os.fdopen(os.dup(0), "rb"), os.dup(1)
        os.dup2(nowhere, 0)
        os.dup2(nowhere, 1)
        threading.Thread(target=_end_with, args=(parent,), name="end-with-parent", daemon=True).start()

    def serve(self, answer: Callable[[bytes, bytes], tuple[bytes, memoryview | None]]) -> None:
        """Answers requests until there are none.

        Args:
          answer: takes a request's words and data; returns the two parts of the answer, the second one optional.
        """
        self._send(HEAD.pack(READY, 0))
        # The buffer is empty between requests, since the parent waits for each answer.
        while select.select([self._from], [], [], _IDLE_SECONDS)[0]:
            words, data = (self._receive(size) for size in REQUEST.unpack(self._receive(REQUEST.size)))
            self._send(HEAD.pack(BEGUN, 0))
            part, content = answer(words, data)
            del words, data
            self._send(HEAD.pack(ANSWER if content is None else PART, len(part)), part)
            if content is not None:
                self._send(HEAD.pack(CONTENT, len(content)), content)

    def wait_for_lock(self) -> None:
        """Requests the parent's lock, which is held until the child's answer."""
        self._send(HEAD.pack(WAITS, 0))
        if self._receive(HEAD.size) != HEAD.pack(GO, 0):
            os._exit(1)

    def _send(self, *parts: bytes | memoryview) -> None:
        for part in parts:
            rest = memoryview(part)
            while len(rest):
                rest = rest[os.write(self._to, rest) :]

    def _receive(self, size: int) -> bytes:
        received = self._from.read(size)
        if len(received) < size:
            os._exit(0)  # the parent sends no more requests
        return received


def limit(seconds: float, more_bytes: int) -> None:
    """Sets the system's limits for the next request: SIGXCPU at the first, ``MemoryError`` at the second.

    Args:
      seconds: CPU time of all threads.
      more_bytes: address space in addition to the current size.
    """
    if resource is None:
        return
    usage = resource.getrusage(resource.RUSAGE_SELF)
    _set(resource.RLIMIT_CPU, int(usage.ru_utime + usage.ru_stime + seconds) + 2)
    with contextlib.suppress(OSError, ValueError):  # only on Linux
        with open("/proc/self/statm") as file:  # noqa: PTH123 (a microsecond counts)
            taken = int(file.read().split()[0]) * _PAGE
        _set(resource.RLIMIT_AS, taken + more_bytes)


def forbid_files() -> None:
    """Prevents writes to files and core dumps, which no decoder needs."""
    if resource is not None:
        _set(resource.RLIMIT_CORE, 0)
        _set(resource.RLIMIT_FSIZE, 0)


def _set(kind: int, soft: int) -> None:
    with contextlib.suppress(OSError, ValueError):
        hard = resource.getrlimit(kind)[1]
        resource.setrlimit(kind, (soft if hard == resource.RLIM_INFINITY else min(soft, hard), hard))


def _end_with(parent: int) -> None:
    """Ends the child after its parent; PR_SET_PDEATHSIG would kill it when the thread that started it ends."""
    opened: Any = None
    with contextlib.suppress(AttributeError, OSError):  # Linux 5.3
        opened = os.pidfd_open(parent)
    if opened is not None and os.getppid() == parent:
        poll = select.poll()
        poll.register(opened, select.POLLIN)
        poll.poll()
    while os.getppid() == parent:
        time.sleep(1)
    os._exit(0)
