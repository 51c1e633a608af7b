"""fake-gcs-server: a Cloud Storage server that is not ours, so what it answers is not what we believe it should.

Of the service, version 1.56 lacks this: it checks ``ifGenerationMatch`` of uploads alone, not of downloads,
copies and deletions; it pages a listing only if ``maxResults`` asks for it; it answers 404 where an upload in several
requests is finished twice. It forbids nothing.
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
    """The server, a process, from construction to ``close``.

    Attributes:
        url: for ``STORAGE_EMULATOR_HOST``.
        address: its host and port.
    """

    def __init__(self) -> None:
        if not _PROGRAM.is_file():
            needs.lacking("no fake-gcs-server here: tools/setup_gcs_server.sh")
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
        # It would take port 0 and not say which port it got.
        command = [_PROGRAM, "-scheme", "http", "-host", host, "-port", str(port), "-backend", "memory"]
        return subprocess.Popen(command, stderr=subprocess.PIPE, text=True)

    def _is_up(self) -> bool:
        """Waits until it says that it listens, or ends since another process has taken the port."""
        self._said = deque[str](maxlen=20)
        for line in self._process.stderr:
            self._said.append(line)
            if "server started" in line:
                # It logs every request, and would stop at a full pipe.
                threading.Thread(target=self._said.extend, args=(self._process.stderr,), daemon=True).start()
                return True
        self._process.wait()
        return False

    def close(self) -> None:
        self._process.terminate()
        self._process.wait()

    def reset(self, bucket: str) -> None:
        """Forget everything but one fresh, empty bucket."""
        self.ask("POST", "/_internal/delete_all")
        self.ask("POST", "/storage/v1/b", json.dumps({"name": bucket}).encode())

    def ask(self, method: str, path: str, body: bytes = b"") -> bytes:
        """Straight to the server: what it answers."""
        with closing(http.client.HTTPConnection(*self.address)) as connection:
            connection.request(method, path, body)
            answer = connection.getresponse()
            content = answer.read()
        assert answer.status == 200, (method, path, answer.status, content)
        return content


class FakeBucket:
    """A fresh, empty bucket on a ``FakeGcsServer``, with helpers that bypass the code under test.

    Args:
        fake: the server.
        name: the bucket's.
        server: the proxy through which the code under test asks, if there is one.
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
        """Store an object; its URI. With an encoding, its downloads say so."""
        query = urlencode({"uploadType": "media", "name": name, "contentEncoding": encoding})
        self._fake.ask("POST", f"/upload/storage/v1/b/{self.bucket}/o?{query}", data)
        return self.uri(name)

    def get(self, name: str) -> bytes:
        """The bytes that the server holds."""
        return self._fake.ask(
            "GET", f"/download/storage/v1/b/{self.bucket}/o/{quote(name, safe='')}?alt=media"
        )

    def list(self, prefix: str = "") -> list[str]:
        """The names of all objects that begin with ``prefix``, sorted."""
        answer = self._fake.ask("GET", f"/storage/v1/b/{self.bucket}/o?{urlencode({'prefix': prefix})}")
        return sorted(item["name"] for item in json.loads(answer).get("items") or [])
