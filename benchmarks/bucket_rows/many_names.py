"""A server that lists millions of objects with generated names."""

from __future__ import annotations

import json
import threading
import time
from bisect import bisect_left
from collections.abc import Callable

from support.servers import Handler, Running

_PAGE = 1000


def _counter(number: int, count: int) -> str:
    return f"{number:08}.jpg"


def _hash(number: int, count: int) -> str:
    text = f"{(number << 64) // count + (number * 0x9E3779B97F4A7C15) % (1 << 40):016x}"
    return f"{text[:2]}/{text[2:4]}/{text}.jpg"


_NAMES: dict[str, Callable[[int, int], str]] = {"counters": _counter, "hashes": _hash}


class ManyNames(Running):
    """Answers listings as Cloud Storage does, but no other request.

    Args:
      layout: form of the names and their directory, ``counters`` or ``hashes``.
      count: number of objects.
      delay: seconds before each answer.

    Attributes:
      requests, sent: number of requests, and bytes of their answers.
    """

    def __init__(self, layout: str, count: int, delay: float) -> None:
        self.requests = self.sent = 0
        self._layout, self._count, self._delay = layout, count, delay
        self._name = _NAMES[layout]
        lock = threading.Lock()
        server = self

        class _Answer(Handler):
            def do_GET(self) -> None:  # noqa: N802
                query = self.received().query
                time.sleep(server._delay)
                content = server._page(query)
                with lock:
                    server.requests += 1
                    server.sent += len(content)
                self.send_response(200)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

        super().__init__(_Answer)

    def __enter__(self) -> ManyNames:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _page(self, query: dict[str, list[str]]) -> bytes:
        prefix = f"{self._layout}/"
        if "pageToken" in query:
            first = int(query["pageToken"][0])
        else:
            start = query.get("startOffset", [""])[0].removeprefix(prefix)
            first = bisect_left(range(self._count), start, key=lambda n: self._name(n, self._count))
        last = min(first + min(_PAGE, int(query.get("maxResults", [_PAGE])[0])), self._count)
        items = ",".join(
            f'{{"name":"{prefix}{self._name(number, self._count)}","size":"123456","generation":"1700000000000000"}}'
            for number in range(first, last)
        )
        token = f',"nextPageToken":{json.dumps(str(last))}' if last < self._count else ""
        return f'{{"items":[{items}]{token}}}'.encode()
