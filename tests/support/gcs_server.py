"""A real GCS server on the loopback for the tests, which fails and delays on order."""

from __future__ import annotations

import http.client
import json
import threading
import time
from contextlib import closing
from dataclasses import dataclass
from email.parser import BytesParser
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from support.servers import Handler, Received, Running


@dataclass
class _Fault:
    """The next ``left`` requests that match are answered with ``status``, after being done if ``done``."""

    left: int
    status: int
    method: str | None
    contains: str
    done: bool


class GcsServer(Running):
    """``gcp-storage-emulator`` behind a reverse proxy that speaks the parts of the protocol it leaves out.

    The emulator stores and answers; the proxy adds what the job relies on: ``ifGenerationMatch`` (412)
    and ``generation`` (404), listings in pages, many connections at once. It counts, and fails on order.

    Attributes:
        url: for ``STORAGE_EMULATOR_HOST``.
        requests: every request since ``reset``, in order of arrival.
        page_size: the most objects in one page of a listing; 1000 on the real thing.
    """

    def __init__(self) -> None:
        from gcp_storage_emulator.server import create_server

        self.requests: list[Received] = []
        self.page_size = 1000
        self._delay = 0.0
        self._faults: list[_Fault] = []
        self._upload_names: dict[str, str] = {}
        self._lock = threading.Lock()
        # Between the check of a precondition and the write nobody else may write.
        self._writing = threading.Lock()
        # The emulator serves one connection at a time, and a sixth in its queue of five costs a second.
        self._forwarding = threading.Semaphore(4)
        self._emulator = create_server("127.0.0.1", 0, in_memory=True)
        # It would dump the metadata of all objects to JSON after every write, for a restart we don't do.
        self._emulator._storage._write_config_to_file = lambda: None
        self._emulator._api.daemon = True
        self._emulator.start()
        self._emulator_address = self._emulator._api._httpd.server_address
        server = self

        class _Answer(Handler):
            def answer(self) -> None:
                server._answer(self)

            do_GET = do_POST = do_PUT = do_DELETE = do_PATCH = answer  # noqa: N815

        super().__init__(_Answer)

    def close(self) -> None:
        super().close()
        self._emulator.stop()

    def reset(self, bucket: str) -> None:
        """Forget everything but one fresh, empty ``bucket``, and all counts, faults and delays."""
        self._emulator.wipe()
        # Without this policy the emulator would keep a copy of all that is deleted.
        policy = {"softDeletePolicy": {"retentionDurationSeconds": "0"}}
        self._emulator._storage.create_bucket(bucket, {"name": bucket, "id": bucket, **policy})
        with self._lock:
            self.requests.clear()
            self._faults.clear()
            self._upload_names.clear()
            self._delay, self.page_size = 0.0, 1000

    def fail_next(
        self, n: int, status: int, *, method: str | None = None, contains: str = "", done: bool = False
    ) -> None:
        """Answer ``status`` to the next ``n`` requests of ``method`` whose path and query hold ``contains``.

        With ``done`` the request is carried out first: the answer was lost on its way, not the request.
        """
        with self._lock:
            self._faults.append(_Fault(n, status, method, contains, done))

    def delay(self, seconds: float) -> None:
        """Wait this long before each answer from now on."""
        self._delay = seconds

    def set_encoding(self, bucket: str, name: str, encoding: str) -> None:
        """Mark an object as stored in ``encoding``; its downloads say so."""
        self._emulator._storage.objects[bucket][name]["contentEncoding"] = encoding

    def count(self, method: str | None = None, contains: str = "") -> int:
        """How many requests of ``method`` arrived whose path holds ``contains``."""
        with self._lock:
            return sum(method in (None, r.method) and contains in r.path for r in self.requests)

    # The proxy's way: note the request, then fault, precondition, emulator, or page of a listing.

    def _answer(self, handler: Handler) -> None:
        body = handler.read_body()
        request = handler.received()
        with self._lock:
            self.requests.append(request)
        time.sleep(self._delay)
        fault = self._take_fault(request.method, unquote(handler.path))
        if fault is None or fault.done:
            status, headers, content = self._serve(handler, request, body)
        if fault is not None:
            message = {"error": {"code": fault.status, "message": "injected by the test"}}
            status, headers, content = fault.status, {}, json.dumps(message).encode()
        handler.send_response(status)
        for name, value in headers.items():
            handler.send_header(name, value)
        handler.send_header("Content-Length", str(len(content)))
        handler.end_headers()
        handler.wfile.write(content)

    def _take_fault(self, method: str, target: str) -> _Fault | None:
        with self._lock:
            for fault in self._faults:
                if fault.left and fault.method in (None, method) and fault.contains in target:
                    fault.left -= 1
                    return fault
        return None

    def _serve(self, handler: Handler, request: Received, body: bytes) -> tuple[int, dict[str, str], bytes]:
        if request.method == "GET":
            refusal = self._refusal(request, body)
            return refusal or self._like_gcs(request, self._forward(handler, body))
        with self._writing:
            refusal = self._refusal(request, body)
            if refusal:
                return refusal
            answer = self._forward(handler, body)
            upload = parse_qs(urlsplit(answer[1].get("Location", "")).query).get("upload_id")
            if upload:
                self._upload_names[upload[0]] = _object_name(request, body)
            return answer

    def _refusal(self, request: Received, body: bytes) -> tuple[int, dict[str, str], bytes] | None:
        wanted = {name: request.query.get(name, [None])[0] for name in ("ifGenerationMatch", "generation")}
        if not any(wanted.values()):
            return None
        upload = request.query.get("upload_id", [""])[0]
        name = self._upload_names.get(upload) or _object_name(request, body)
        bucket = request.path.rpartition("/b/")[2].partition("/")[0]
        stored = self._emulator._storage.objects.get(bucket, {}).get(name, {}).get("generation", "0")
        for parameter, status in (("ifGenerationMatch", 412), ("generation", 404)):
            if wanted[parameter] is not None and wanted[parameter] != stored:
                error = {"code": status, "message": f"{name}: {parameter} is not {stored}"}
                return status, {"Content-Type": "application/json"}, json.dumps({"error": error}).encode()
        return None

    def _forward(self, handler: Handler, body: bytes) -> tuple[int, dict[str, str], bytes]:
        headers = {k: v for k, v in handler.headers.items() if k.lower() != "connection"}
        with self._forwarding, closing(http.client.HTTPConnection(*self._emulator_address)) as connection:
            connection.request(handler.command, handler.path, body, headers)
            answer = connection.getresponse()
            content = answer.read()
        hop_by_hop = {"connection", "content-length", "date", "server"}
        kept = {name: value for name, value in answer.getheaders() if name.lower() not in hop_by_hop}
        if answer.getheader("Content-Type") == "application/json" and "media" not in handler.path:
            # The emulator does not quote names in these links, and clients follow them; without, they make one.
            content = json.dumps(json.loads(content, object_hook=_without_media_link)).encode()
        return answer.status, kept, content

    def _like_gcs(
        self, request: Received, answer: tuple[int, dict[str, str], bytes]
    ) -> tuple[int, dict[str, str], bytes]:
        """Downloads with the headers that describe the object, listings in pages."""
        status, headers, content = answer
        if request.path.startswith("/download/"):
            bucket, _, name = request.path.partition("/b/")[2].partition("/o/")
            stored = self._emulator._storage.objects.get(bucket, {}).get(name, {})
            facts = {"X-Goog-Generation": "generation", "ETag": "etag", "Content-Encoding": "contentEncoding"}
            headers |= {header: stored[key] for header, key in facts.items() if key in stored}
        if not request.path.endswith("/o") or status != 200:
            return status, headers, content
        listing = json.loads(content)
        after = request.query.get("pageToken", [""])[0]
        size = min(self.page_size, int(request.query.get("maxResults", [str(self.page_size)])[0]))
        left = [item for item in listing["items"] if item["name"] > after]
        listing["items"] = left[:size]
        if len(left) > size:
            listing["nextPageToken"] = left[size - 1]["name"]
        return status, headers, json.dumps(listing).encode()


def _without_media_link(resource: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in resource.items() if key != "mediaLink"}


def _object_name(request: Received, body: bytes) -> str:
    """The object that a request writes or reads: in its path, its query, or the metadata it uploads."""
    if "name" in request.query:
        return request.query["name"][0]
    if not request.path.startswith("/upload/"):
        return request.path.rpartition("/o/")[2]
    content_type = request.headers.get("Content-Type", request.headers.get("content-type", ""))
    if content_type.startswith("multipart/"):
        message = BytesParser().parsebytes(b"Content-Type: " + content_type.encode() + b"\r\n\r\n" + body)
        return json.loads(message.get_payload()[0].get_payload())["name"]
    return json.loads(body)["name"]


class Bucket:
    """A fresh, empty bucket on a ``GcsServer``, with helpers that bypass the code under test."""

    def __init__(self, server: GcsServer, name: str) -> None:
        server.reset(name)
        self.server = server
        self.bucket = name
        self.url = f"gs://{name}"

    def uri(self, name: str) -> str:
        return f"{self.url}/{name}"

    def put(self, name: str, data: bytes) -> str:
        """Store an object straight in the emulator, uncounted; its URI."""
        from gcp_storage_emulator.handlers.objects import _checksums, _make_object_resource

        resource = _make_object_resource(
            self.server.url, self.bucket, name, "application/octet-stream", str(len(data))
        )
        self._storage.create_file(self.bucket, name, data, _checksums(data, resource))
        return self.uri(name)

    def get(self, name: str) -> bytes:
        """The bytes that the emulator holds."""
        return self._storage.get_file(self.bucket, name)

    def list(self, prefix: str = "") -> list[str]:
        """The names of all objects that begin with ``prefix``, sorted."""
        return sorted(n for n in self._storage.objects.get(self.bucket, {}) if n.startswith(prefix))

    @property
    def _storage(self) -> Any:
        return self.server._emulator._storage
