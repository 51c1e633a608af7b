"""Servers on the loopback interface: an HTTP server with injected faults, and code that servers share."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, quote, unquote, urlsplit


def free_port() -> int:
    """A free port; another process may still take it first."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    # http.server has a backlog of 5, but a pool of fetching threads connects all at once.
    request_queue_size = 256

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Prints no traceback for clients that hang up, since tests do so on purpose."""


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    # Headers and body leave in one packet. Otherwise Nagle and delayed ACKs add 40 ms to every answer.
    wbufsize = 1 << 16
    disable_nagle_algorithm = True

    def log_message(self, *_: object) -> None:
        pass

    def handle_expect_100(self) -> bool:
        """Sends "100 Continue" at once; a buffered answer would delay botocore by a second."""
        goes_on = super().handle_expect_100()
        self.wfile.flush()
        return goes_on

    def read_body(self) -> bytes:
        length = int(self.headers.get("Content-Length") or 0)
        body = self.rfile.read(length)
        if len(body) < length:
            # The sender was killed. If forwarded, the body would make the next server wait forever for the rest.
            raise ConnectionAbortedError(f"{len(body)} of {length} bytes came")
        return body

    def received(self) -> Received:
        target = urlsplit(self.path)
        query = parse_qs(target.query)
        return Received(self.command, unquote(target.path), query, dict(self.headers), self.client_address)


class Running:
    """A ``_Server`` in a thread; it runs from construction to ``close``."""

    def __init__(self, handler: type[Handler]) -> None:
        self._server = _Server(("127.0.0.1", 0), handler)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True)
        self._thread.start()
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


# --- HTTP ---------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Reply:
    """The answer of ``FileServer`` for a path.

    ``delay`` is the wait before the status line in seconds, ``drip`` the wait between bytes of the body. The first
    ``fail_first`` requests get ``fail_status`` and an empty body. A ``Content-Length`` in ``headers`` is sent
    unchanged, even if false; ``content_length=False`` sends none and closes the connection at the end.
    """

    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""
    delay: float = 0.0
    drip: float = 0.0
    redirect: str | None = None
    fail_first: int = 0
    fail_status: int = 503
    fail_headers: Mapping[str, str] = field(default_factory=dict)
    content_length: bool = True


@dataclass(frozen=True)
class Received:
    """A received request; ``path`` is percent-decoded and has no query."""

    method: str
    path: str
    query: Mapping[str, list[str]]
    headers: Mapping[str, str]
    connection: tuple[str, int]
    """The client's end of the connection; requests with the same one came over one connection."""


class FileServer(Running):
    """Serves ``files``: path → ``Reply`` or bytes; a path without a query matches any query. Otherwise 404."""

    def __init__(self) -> None:
        self.files: dict[str, Reply | bytes] = {}
        self.requests: list[Received] = []
        self._lock = threading.Lock()
        server = self

        class _Answer(Handler):
            def do_GET(self) -> None:
                server._answer(self)

            do_HEAD = do_GET  # noqa: N815

            def do_POST(self) -> None:
                self.read_body()
                server._answer(self)

        super().__init__(_Answer)

    def url_of(self, path: str) -> str:
        """The URL that serves ``files[path]``."""
        return self.url + quote(path, safe="/?&=%")

    def count(self, path: str) -> int:
        """The number of requests for ``path`` with any query."""
        with self._lock:
            return sum(request.path == path for request in self.requests)

    def reset(self) -> None:
        with self._lock:
            self.files.clear()
            self.requests.clear()

    def _answer(self, handler: Handler) -> None:
        target = urlsplit(handler.path)
        path = unquote(target.path)
        with self._lock:
            earlier = sum(request.path == path for request in self.requests)
            self.requests.append(handler.received())
        reply = self.files.get(f"{path}?{unquote(target.query)}", self.files.get(path, Reply(status=404)))
        reply = Reply(body=reply) if isinstance(reply, bytes) else reply
        time.sleep(reply.delay)
        if earlier < reply.fail_first:
            reply = Reply(status=reply.fail_status, headers=reply.fail_headers)
        self._send(handler, reply)

    @staticmethod
    def _send(handler: Handler, reply: Reply) -> None:
        handler.send_response(302 if reply.redirect and reply.status == 200 else reply.status)
        headers = dict(reply.headers)
        if reply.redirect:
            headers["Location"] = reply.redirect
        if reply.content_length:
            headers.setdefault("Content-Length", str(len(reply.body)))
        if headers.get("Content-Length") != str(len(reply.body)):
            headers["Connection"] = "close"
        for name, value in headers.items():
            handler.send_header(name, value)
        handler.end_headers()
        if handler.command == "HEAD":
            return
        if not reply.drip:
            handler.wfile.write(reply.body)
            return
        for byte in reply.body:
            handler.wfile.write(bytes([byte]))
            handler.wfile.flush()
            time.sleep(reply.drip)
