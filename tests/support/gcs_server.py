"""A GCS server on the loopback interface with injected faults and delays."""

from __future__ import annotations

import json
import threading
from email.parser import BytesParser
from typing import Any
from urllib.parse import parse_qs, urlsplit

from support.gcs_proxy import Answer, GcsProxy
from support.servers import Handler, Received

_PAGE_SIZE = 1000


class GcsServer(GcsProxy):
    """``gcp-storage-emulator`` behind a proxy that adds the missing parts of the protocol.

    The proxy adds ``ifGenerationMatch`` (412), ``generation`` (404), paged listings and concurrent connections, since
    the job relies on them. It also counts requests and injects faults.
    """

    def __init__(self) -> None:
        from gcp_storage_emulator.server import create_server

        self._upload_names: dict[str, str] = {}
        # No other write may come between the check of a precondition and the write.
        self._writing = threading.Lock()
        # The emulator serves one connection at a time, and its queue holds five. A sixth waits for a second.
        self._forwarding = threading.Semaphore(4)
        self._emulator = create_server("127.0.0.1", 0, in_memory=True)
        # The emulator would write all metadata to JSON after every write, for restarts that never happen here.
        self._emulator._storage._write_config_to_file = lambda: None
        self._emulator._api.daemon = True
        self._emulator.start()
        super().__init__(self._emulator._api._httpd.server_address)

    def close(self) -> None:
        super().close()
        self._emulator.stop()

    def reset(self, bucket: str) -> None:
        """Deletes everything, clears all counts, faults and delays, and creates an empty ``bucket``."""
        self._emulator.wipe()
        # Without this policy the emulator keeps a copy of every deleted object.
        policy = {"softDeletePolicy": {"retentionDurationSeconds": "0"}}
        self._emulator._storage.create_bucket(bucket, {"name": bucket, "id": bucket, **policy})
        self._upload_names.clear()
        self.forget()

    # A request passes the precondition and the emulator; then missing parts of the answer are added.

    def _serve(self, handler: Handler, request: Received, body: bytes) -> Answer:
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

    def _refusal(self, request: Received, body: bytes) -> Answer | None:
        wanted = {name: request.query.get(name, [None])[0] for name in ("ifGenerationMatch", "generation")}
        if not any(wanted.values()):
            return None
        upload = request.query.get("upload_id", [""])[0]
        name = self._upload_names.get(upload) or _object_name(request, body)
        bucket = request.path.partition("/b/")[2].partition("/")[0]
        stored = self._emulator._storage.objects.get(bucket, {}).get(name, {}).get("generation", "0")
        for parameter, status in (("ifGenerationMatch", 412), ("generation", 404)):
            if wanted[parameter] is not None and wanted[parameter] != stored:
                error = {"code": status, "message": f"{name}: {parameter} is not {stored}"}
                return status, {"Content-Type": "application/json"}, json.dumps({"error": error}).encode()
        return None

    def _forward(self, handler: Handler, body: bytes) -> Answer:
        with self._forwarding:
            status, headers, content = super()._forward(handler, body)
        if headers.get("Content-Type") == "application/json" and "media" not in handler.path:
            # The emulator does not quote names in these links. Clients follow links, but build them if they are
            # missing.
            content = json.dumps(json.loads(content, object_hook=_without_media_link)).encode()
        return status, headers, content

    def _like_gcs(self, request: Received, answer: Answer) -> Answer:
        """Adds the object's headers to downloads and splits listings into pages."""
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
        size = min(_PAGE_SIZE, int(request.query.get("maxResults", [_PAGE_SIZE])[0]))
        start = request.query.get("startOffset", [""])[0]
        end = request.query.get("endOffset", [None])[0]
        left = [
            item
            for item in listing["items"]
            if item["name"] > after and item["name"] >= start and (end is None or item["name"] < end)
        ]
        listing["items"] = left[:size]
        if len(left) > size:
            listing["nextPageToken"] = left[size - 1]["name"]
        return status, headers, json.dumps(listing).encode()


def _without_media_link(resource: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in resource.items() if key != "mediaLink"}


def _object_name(request: Received, body: bytes) -> str:
    """The object of a request, from its path, its query or its uploaded metadata."""
    if "name" in request.query:
        return request.query["name"][0]
    if not request.path.startswith("/upload/"):
        return request.path.partition("/o/")[2]
    content_type = request.headers.get("Content-Type", request.headers.get("content-type", ""))
    if content_type.startswith("multipart/"):
        message = BytesParser().parsebytes(b"Content-Type: " + content_type.encode() + b"\r\n\r\n" + body)
        return json.loads(message.get_payload()[0].get_payload())["name"]
    return json.loads(body)["name"]


class Bucket:
    """A fresh, empty bucket on a ``GcsServer`` with helpers that bypass the code under test."""

    def __init__(self, server: GcsServer, name: str) -> None:
        server.reset(name)
        self.server = server
        self.bucket = name
        self.url = f"gs://{name}"

    def uri(self, name: str) -> str:
        return f"{self.url}/{name}"

    shown = uri

    def put(self, name: str, data: bytes, encoding: str = "") -> str:
        """Stores an object directly in the emulator, uncounted, and returns its URI; downloads state ``encoding``."""
        from gcp_storage_emulator.handlers.objects import _checksums, _make_object_resource

        resource = _make_object_resource(
            self.server.url, self.bucket, name, "application/octet-stream", str(len(data))
        )
        if encoding:
            resource["contentEncoding"] = encoding
        self._storage.create_file(self.bucket, name, data, _checksums(data, resource))
        return self.uri(name)

    def get(self, name: str) -> bytes:
        """The bytes of an object in the emulator."""
        return self._storage.get_file(self.bucket, name)

    def remove(self, name: str) -> None:
        """Deletes an object directly in the emulator, uncounted."""
        self._storage.delete_file(self.bucket, name)

    def list(self, prefix: str = "") -> list[str]:
        """The names of all objects that begin with ``prefix``, sorted."""
        return sorted(n for n in self._storage.objects.get(self.bucket, {}) if n.startswith(prefix))

    @property
    def _storage(self) -> Any:
        return self.server._emulator._storage
