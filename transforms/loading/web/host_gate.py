"""Admission of requests to hosts: a limit on concurrent requests, and none before ``Retry-After``.

There is one gate per process. A waiting request registers a callback and holds no thread, so that images of a slow host
do not delay those of other hosts.
"""

from __future__ import annotations

import heapq
import itertools
import os
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import NamedTuple

Wake = Callable[[bool], None]
"""Called once for a waiting request: True admits it now, False asks it to enter again. Must not raise."""


# Beyond this number idle hosts are dropped.
_HOSTS_REMEMBERED = 4096


class _Waiting(NamedTuple):
    limit: int
    wake: Wake


class _Host:
    def __init__(self) -> None:
        self.asked_by = 0
        self.waiting: deque[_Waiting] = deque()
        self.held_until = 0.0  # in time.monotonic()

    def is_idle(self, now: float) -> bool:
        return not self.asked_by and not self.waiting and self.held_until <= now


class HostGate:
    """Counts the requests to each host."""

    def __init__(self) -> None:
        self._hosts: dict[str, _Host] = {}
        self._lock = threading.Lock()
        self._alarms = _Alarms()

    def enter(self, host: str, limit: int, wake: Wake) -> bool:
        """Whether the request is admitted now, to ``leave`` afterwards; else ``wake`` is called when it is.

        Args:
          host: with its port.
          limit: requests at a time.
          wake: see ``Wake``; called in any thread, before this returns if the host is held.
        """
        with self._lock:
            if host not in self._hosts and len(self._hosts) >= _HOSTS_REMEMBERED:
                self._forget_idle()
            there = self._hosts.setdefault(host, _Host())
            is_held = there.held_until > time.monotonic()
            if not is_held and there.asked_by < limit and not there.waiting:
                there.asked_by += 1
                return True
            if not is_held:
                there.waiting.append(_Waiting(limit, wake))
        if is_held:
            wake(False)
        return False

    def leave(self, host: str) -> None:
        """Ends a request to the host and admits the request that has waited longest."""
        woken = []
        with self._lock:
            there = self._hosts[host]
            there.asked_by -= 1
            while there.waiting and there.asked_by < there.waiting[0].limit:
                there.asked_by += 1
                woken.append(there.waiting.popleft().wake)
            if there.is_idle(time.monotonic()):
                del self._hosts[host]
        for wake in woken:
            wake(True)

    def hold(self, host: str, until: float) -> None:
        """Admits no request to the host before ``until``, in ``time.monotonic()``; waiting requests enter again."""
        with self._lock:
            there = self._hosts.setdefault(host, _Host())
            if until <= there.held_until:
                return
            there.held_until = until
            woken = [waiting.wake for waiting in there.waiting]
            there.waiting.clear()
        for wake in woken:
            wake(False)

    def held_until(self, host: str) -> float:
        """The time until which the host admits no request, in ``time.monotonic()``; 0 if it is not held."""
        there = self._hosts.get(host)
        return 0.0 if there is None else there.held_until

    def later(self, when: float, wake: Wake) -> None:
        """Calls ``wake(False)`` at ``when``, in ``time.monotonic()``."""
        self._alarms.set(when, wake)

    def _forget_idle(self) -> None:
        now = time.monotonic()
        for host in [host for host, there in self._hosts.items() if there.is_idle(now)]:
            del self._hosts[host]


class _Alarms:
    """Calls back at given times, in a thread that runs while any are set."""

    def __init__(self) -> None:
        self._set: list[tuple[float, int, Wake]] = []
        self._numbers = itertools.count()
        self._changed = threading.Condition()
        self._is_running = False

    def set(self, when: float, wake: Wake) -> None:
        """Sets an alarm; raises ``RuntimeError`` if no thread can be started."""
        with self._changed:
            if not self._is_running:
                threading.Thread(target=self._run, name="host-alarms", daemon=True).start()
                self._is_running = True
            heapq.heappush(self._set, (when, next(self._numbers), wake))
            self._changed.notify()

    def _run(self) -> None:
        while (wake := self._next()) is not None:
            wake(False)

    def _next(self) -> Wake | None:
        with self._changed:
            while self._set:
                seconds = self._set[0][0] - time.monotonic()
                if seconds <= 0:
                    return heapq.heappop(self._set)[2]
                self._changed.wait(seconds)
            self._is_running = False
            return None


_gate = HostGate()


def host_gate() -> HostGate:
    """The process's gate."""
    return _gate


def _new_gate() -> None:
    # The threads of admitted requests do not exist in a forked child.
    global _gate
    _gate = HostGate()


os.register_at_fork(after_in_child=_new_gate)
