"""fake-gcs-server: a third-party Cloud Storage server, whose answers do not rest on our assumptions.

Version 1.56 differs from the service. It checks ``ifGenerationMatch`` of uploads only, not of downloads, copies and
deletions. It pages a listing only if ``maxResults`` is given. It answers 404 if a resumable upload is finished twice.
It has no access control.
"""

from __future__ import annotations

import http.client
import json
import subprocess
import threading
from collections import deque
from contextlib import closing
from urllib.parse import quote, urlencode

from support import needs
from support.gcs_proxy import GcsProxy
from support.paths import ROOT
from support.servers import free_port

_PROGRAM = ROOT / ".runners" / "fake-gcs-server" / "fake-gcs-server"
_TRIES = 5


class FakeGcsServer:
    """A server process that runs from construction to ``close``.

    Attributes:
        url: The value for ``STORAGE_EMULATOR_HOST``.
        address: The server's host and port.
    """

    def __init__(self) -> None:
        if not _PROGRAM.is_file():
            needs.lacking("no fake-gcs-server; tools/setup_gcs_server.sh installs it")
        for _ in range(_TRIES):
            self.address = ("127.0.0.1", free_port())
            self.url = "http://{}:{}".format(*self.address)
            self._process = self._start()
            if self._is_up():
                break
        else:
            raise RuntimeError(f"fake-gcs-server does not start: {self._said}")

    def _start(self) -> subprocess.Popen[str]:
        host, port = self.address
        # The server accepts port 0 but does not report the port it got.
        command = [_PROGRAM, "-scheme", "http", "-host", host, "-port", str(port), "-backend", "memory"]
        return subprocess.Popen(command, stderr=subprocess.PIPE, text=True)

    def _is_up(self) -> bool:
        """Waits until the server reports that it listens, or exits because another process has the port."""
        self._said = deque[str](maxlen=20)
        for line in self._process.stderr:
            self._said.append(line)
            if "server started" in line:
                # The server logs every request and would block on a full pipe.
                threading.Thread(target=self._said.extend, args=(self._process.stderr,), daemon=True).start()
                return True
        self._process.wait()
        return False

    def close(self) -> None:
        self._process.terminate()
        self._process.wait()

    def reset(self, bucket: str) -> None:
        """Deletes everything and creates one empty bucket."""
        self.ask("POST", "/_internal/delete_all")
        self.ask("POST", "/storage/v1/b", json.dumps({"name": bucket}).encode())

    def ask(self, method: str, path: str, body: bytes = b"") -> bytes:
        """Sends a request straight to the server and returns the answer."""
        with closing(http.client.HTTPConnection(*self.address)) as connection:
            connection.request(method, path, body)
            answer = connection.getresponse()
            content = answer.read()
        assert answer.status == 200, (method, path, answer.status, content)
        return content


class FakeBucket:
    """A fresh, empty bucket on a ``FakeGcsServer`` with helpers that bypass the code under test.

    Args:
        fake: The server.
        name: The bucket's name.
        server: The proxy that the code under test uses, if there is one.
    """

    def __init__(self, fake: FakeGcsServer, name: str, server: GcsProxy | None = None) -> None:
        fake.reset(name)
        self._fake = fake
        self.server = server
        self.bucket = name
        self.url = f"gs://{name}"

    def uri(self, name: str) -> str:
        return f"{self.url}/{name}"

    shown = uri

    def put(self, name: str, data: bytes, encoding: str = "") -> str:
        """Stores an object and returns its URI; downloads state ``encoding`` if it is given."""
        query = urlencode({"uploadType": "media", "name": name, "contentEncoding": encoding})
        self._fake.ask("POST", f"/upload/storage/v1/b/{self.bucket}/o?{query}", data)
        return self.uri(name)

    def get(self, name: str) -> bytes:
        """The bytes of an object on the server."""
        return self._fake.ask(
            "GET", f"/download/storage/v1/b/{self.bucket}/o/{quote(name, safe='')}?alt=media"
        )

    def list(self, prefix: str = "") -> list[str]:
        """The names of all objects that begin with ``prefix``, sorted."""
        answer = self._fake.ask("GET", f"/storage/v1/b/{self.bucket}/o?{urlencode({'prefix': prefix})}")
        return sorted(item["name"] for item in json.loads(answer).get("items") or [])
