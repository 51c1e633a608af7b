"""Runs the steps of fetching an image from the web, each as soon as its host admits a request."""

from __future__ import annotations

import time
from collections.abc import Callable
from queue import SimpleQueue
from typing import TypeAlias

from beamlabel.transforms.loading.http_fetch import HttpFetch
from beamlabel.transforms.loading.web.host_gate import host_gate
from beamlabel.transforms.loading.web.http_options import HttpOptions

Result: TypeAlias = tuple[bytes, "str | None"]
"""An image's bytes and its version, see ``HttpFetch.step``."""


class Steps:
    """Runs the steps of a fetch, each when its host admits a request.

    Args:
      fetch: the requests.
      run: runs a function in a thread that may wait for the network; raises ``RuntimeError`` if it cannot.
      done: called once with the result or the exception.
      is_wanted: called before each step, in its thread, and may block; False ends the fetch without a call of ``done``.
    """

    def __init__(
        self,
        fetch: HttpFetch,
        run: Callable[[Callable[[], None]], object],
        done: Callable[[Result | BaseException], object],
        is_wanted: Callable[[], bool] = lambda: True,
    ) -> None:
        self._fetch, self._run, self._done, self._is_wanted = fetch, run, done, is_wanted
        self._asked = 0.0

    def begin(self) -> None:
        """Runs the next step, or registers to be called when the host admits it."""
        fetch, gate = self._fetch, host_gate()
        try:
            fetch.wait_until(gate.held_until(fetch.host))
            if fetch.due > time.monotonic():
                gate.later(fetch.due, self._wake)
                return
        except BaseException as error:
            self._done(error)
            return
        self._asked = time.monotonic()
        if gate.enter(fetch.host, fetch.options.per_host, self._wake_from_queue):
            self._step()

    def _wake(self, may_ask: bool) -> None:
        host = self._fetch.host
        try:
            self._run(self._step if may_ask else self.begin)
        except BaseException as error:  # no thread is available; raised again for the image
            if may_ask:
                host_gate().leave(host)
            self._done(error)

    def _wake_from_queue(self, may_ask: bool) -> None:
        self._fetch.excuse(time.monotonic() - self._asked)
        self._wake(may_ask)

    def _is_due(self) -> bool:
        return max(self._fetch.due, host_gate().held_until(self._fetch.host)) <= time.monotonic()

    def _step(self) -> None:
        """Runs steps; the host has admitted the request."""
        fetch, gate = self._fetch, host_gate()
        host = fetch.host
        result: Result | BaseException | None = None
        is_wanted = True
        try:
            is_wanted = self._is_wanted()
            # A redirect within the host needs no second admission.
            while is_wanted and result is None and fetch.host == host and self._is_due():
                result = fetch.step()
        except BaseException as error:
            result = error
        finally:
            gate.leave(host)
        if result is not None:
            self._done(result)
        elif is_wanted:
            self.begin()


def get(
    url: str,
    *,
    max_bytes: int,
    deadline: float,
    allow_private_hosts: bool = False,
    options: HttpOptions | None = None,
    allowed_schemes: tuple[str, ...] | None = None,
) -> Result:
    """Fetches the body of a URL and its version, with all steps of an ``HttpFetch`` in this thread.

    Raises:
      ImageError: See ``HttpFetch``.
    """
    fetch = HttpFetch(
        url,
        max_bytes=max_bytes,
        deadline=deadline,
        allow_private_hosts=allow_private_hosts,
        options=options,
        allowed_schemes=allowed_schemes,
    )
    tasks = SimpleQueue[Callable[[], None]]()
    results: list[Result | BaseException] = []
    Steps(fetch, tasks.put, results.append).begin()
    while not results:
        tasks.get()()
    if isinstance(results[0], BaseException):
        raise results[0]
    return results[0]
