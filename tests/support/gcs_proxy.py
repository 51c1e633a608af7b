"""A reverse proxy for an object storage server; it counts requests and injects delays and faults."""

from __future__ import annotations

import http.client
import json
import re
import threading
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from typing import Any, TypeAlias
from urllib.parse import parse_qs, unquote, urlsplit

from support.servers import Handler, Received, Running

Answer: TypeAlias = tuple[int, dict[str, str], bytes]
"""Status, headers, and body."""


@dataclass
class _Fault:
    """A fault: the next ``left`` matching requests get ``status``, after execution if ``done``."""

    left: int
    status: int
    method: str | None
    contains: str
    done: bool
    cut: bool = False
    """The answer is the true one, and breaks off in the middle of the body."""


def _upload_type(request: Received, body: bytes) -> list[str]:
    """The content type of a single-request upload; the object's metadata takes precedence over the part's header."""
    if request.query.get("uploadType") != ["multipart"]:
        return []
    found = re.search(
        rb"\r\n\r\n({.*?})\r\n--[^\r]*\r\ncontent-type: ([^\r]*)\r\n", body, re.DOTALL | re.IGNORECASE
    )
    assert found is not None, body[:1000]
    of_object = json.loads(found[1]).get("contentType", found[2].decode())
    return [of_object]


def calls_of(body: bytes) -> list[str]:
    """The paths with queries of the calls in a batch request."""
    return [path.decode() for path in re.findall(rb"\n(?:DELETE|GET|PATCH|POST|PUT) (\S+)", body)]


class GcsProxy(Running):
    """Forwards every request unchanged unless a fault or delay is set.

    Args:
        address: The server's host and port.

    Attributes:
        url: The value for ``STORAGE_EMULATOR_HOST``.
        requests: All requests since ``reset`` in order of arrival.
        batched: The paths with queries of the calls in batch requests, which are not in ``requests``.
        body_bytes: The size of the bodies of these requests and their answers.
        upload_types: The content types of uploaded objects in order of arrival.
        requester_pays: Buckets whose requests must name a project that pays; others are refused as by the service.
    """

    def __init__(self, address: tuple[str, int]) -> None:
        self.requests: list[Received] = []
        self.batched: list[str] = []
        self.body_bytes = 0
        self.upload_types: list[str] = []
        self.requester_pays: set[str] = set()
        self._address = address
        self._delay = 0.0
        self._faults: list[_Fault] = []
        self._acts: list[tuple[str, Callable[[], object]]] = []
        self._lock = threading.Lock()
        proxy = self

        class _Answer(Handler):
            def answer(self) -> None:
                proxy._answer(self)

            do_GET = do_HEAD = do_POST = do_PUT = do_DELETE = do_PATCH = answer  # noqa: N815

        super().__init__(_Answer)

    def forget(self) -> None:
        """Clears all counts, faults and delays."""
        with self._lock:
            self.requests.clear()
            self.body_bytes = 0
            self.upload_types.clear()
            self.batched.clear()
            self.requester_pays.clear()
            self._faults.clear()
            self._acts.clear()
            self._delay = 0.0

    def fail_next(
        self, n: int, status: int, *, method: str | None = None, contains: str = "", done: bool = False
    ) -> None:
        """Answers ``status`` to the next ``n`` requests of ``method`` whose path and query contain ``contains``.

        With ``done``, the request is executed first, as if only its answer were lost.
        """
        with self._lock:
            self._faults.append(_Fault(n, status, method, contains, done))

    def cut_next(self, n: int, *, method: str | None = None, contains: str = "") -> None:
        """Closes the connection in the middle of the response body of the next ``n`` such requests."""
        with self._lock:
            self._faults.append(_Fault(n, 200, method, contains, done=True, cut=True))

    def before(self, contains: str, act: Callable[[], object]) -> None:
        """Calls ``act`` before each request whose path contains ``contains`` is executed."""
        self._acts.append((contains, act))

    def delay(self, seconds: float) -> None:
        """Delays each later answer by this time."""
        self._delay = seconds

    def count(self, method: str | None = None, contains: str = "") -> int:
        """The number of requests of ``method`` whose path contains ``contains``."""
        with self._lock:
            return sum(method in (None, r.method) and contains in r.path for r in self.requests)

    def _answer(self, handler: Handler) -> None:
        body = handler.read_body()
        request = handler.received()
        with self._lock:
            self.requests.append(request)
            self.body_bytes += len(body)
            self.upload_types += _upload_type(request, body)
            batched = calls_of(body) if request.path.startswith("/batch/") else []
            self.batched += batched
        time.sleep(self._delay)
        for contains, act in self._acts:
            if contains in request.path:
                act()
        fault = self._take_fault(request.method, unquote(handler.path))
        unpaid = self._unpaid(request, batched)
        if unpaid is not None:
            status, headers, content = unpaid
        elif fault is None or fault.done:
            status, headers, content = self._serve(handler, request, body)
        if fault is not None and unpaid is None and not fault.cut:
            status, headers, content = fault.status, {}, self._injected(fault.status)
        handler.send_response(status)
        for name, value in headers.items():
            handler.send_header(name, value)
        if request.method != "HEAD" or "Content-Length" not in headers:
            handler.send_header("Content-Length", str(len(content)))
        handler.end_headers()
        if request.method == "HEAD":
            return
        if fault is not None and fault.cut:
            content = content[: len(content) // 2]
            handler.close_connection = True
        with self._lock:
            self.body_bytes += len(content)
        handler.wfile.write(content)

    def _injected(self, status: int) -> bytes:
        """The body of an injected error."""
        message: dict[str, Any] = {"error": {"code": status, "message": "injected by the test"}}
        return json.dumps(message).encode()

    def _take_fault(self, method: str, target: str) -> _Fault | None:
        with self._lock:
            for fault in self._faults:
                if fault.left and fault.method in (None, method) and fault.contains in target:
                    fault.left -= 1
                    return fault
        return None

    def _serve(self, handler: Handler, request: Received, body: bytes) -> Answer:
        """The server's answer."""
        return self._forward(handler, body)

    def _unpaid(self, request: Received, batched: list[str]) -> Answer | None:
        """The error for a request without a paying project: plain text for media downloads, JSON otherwise."""
        if "upload_id" in request.query:  # of an upload whose first request named the paying project
            return None
        if "x-goog-user-project" in {name.lower() for name in request.headers}:
            return None
        calls = [urlsplit(call) for call in batched]
        asked = [(call.path, parse_qs(call.query)) for call in calls] or [(request.path, request.query)]
        buckets = {
            path.partition("/b/")[2].partition("/")[0] for path, query in asked if "userProject" not in query
        }
        if not buckets & self.requester_pays:
            return None
        text = "Bucket is a requester pays bucket but no user project provided."
        if request.query.get("alt") == ["media"]:
            return 400, {"Content-Type": "text/html; charset=UTF-8"}, text.encode()
        detail = {"message": text, "domain": "global", "reason": "required"}
        error = {"error": {"code": 400, "message": text, "errors": [detail]}}
        return 400, {"Content-Type": "application/json"}, json.dumps(error).encode()

    def _forward(self, handler: Handler, body: bytes) -> Answer:
        headers = {k: v for k, v in handler.headers.items() if k.lower() not in ("connection", "expect")}
        with closing(http.client.HTTPConnection(*self._address)) as connection:
            connection.request(handler.command, handler.path, body, headers)
            answer = connection.getresponse()
            content = answer.read()
        hop_by_hop = {"connection", "date", "server", "transfer-encoding"}
        if handler.command != "HEAD":  # here the length is the size of the object
            hop_by_hop.add("content-length")
        kept = {name: value for name, value in answer.getheaders() if name.lower() not in hop_by_hop}
        return answer.status, kept, content
