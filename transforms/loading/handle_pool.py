"""A pool of libcurl handles by host, for requests to many hosts."""

from __future__ import annotations

import os
import threading
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager

from beamlabel.transforms.loading.curl import ConnectionSettings, Handle


class HandlePool:
    """Keeps idle handles for the next request to the host that they are connected to.

    A host gets no more connections than it has concurrent requests, whichever threads make them.

    Args:
      settings: of all handles.
      idle: the most idle handles; those of the least recently used host are closed first.
    """

    def __init__(self, settings: ConnectionSettings, idle: int = 64) -> None:
        self._settings, self._most = settings, idle
        self._idle: OrderedDict[str, list[Handle]] = OrderedDict()
        self._count = 0
        self._lock = threading.Lock()

    @contextmanager
    def handle(self, authority: str) -> Iterator[Handle]:
        """Lends a handle for one request to a host and port."""
        handle = self._take(authority) or Handle(self._settings)
        try:
            yield handle
        finally:
            self._give_back(authority, handle)

    def _take(self, authority: str) -> Handle | None:
        with self._lock:
            return self._popped(authority) if authority in self._idle else None

    def _popped(self, authority: str) -> Handle:
        waiting = self._idle[authority]
        handle = waiting.pop()
        if not waiting:
            del self._idle[authority]
        self._count -= 1
        return handle

    def _give_back(self, authority: str, handle: Handle) -> None:
        closed = None
        with self._lock:
            self._idle.setdefault(authority, []).append(handle)
            self._idle.move_to_end(authority)
            self._count += 1
            if self._count > self._most:
                closed = self._popped(next(iter(self._idle)))
        if closed is not None:
            closed.close()


_pools: dict[ConnectionSettings, HandlePool] = {}
_inherited: list[dict[ConnectionSettings, HandlePool]] = []


def handle_pool(settings: ConnectionSettings) -> HandlePool:
    """The process's pool of handles with these settings."""
    return _pools.get(settings) or _pools.setdefault(settings, HandlePool(settings))


def _forget_pools() -> None:
    # See ``curl``: inherited handles are neither used nor closed.
    global _pools
    _inherited.append(_pools)
    _pools = {}


os.register_at_fork(after_in_child=_forget_pools)
