"""Serves a directory's files as Google Cloud Storage does, each answer delayed; for ``benchmarks/remote.py``.

``python benchmarks/object_server.py DIR BUCKET SECONDS`` prints its URL, for ``STORAGE_EMULATOR_HOST``, and
serves until it is killed. It answers only one kind of request, the JSON API's media download, from memory, with the
headers of the real service. It shares the cores with the measured program, so it does as little as possible.
"""

import asyncio
import base64
import hashlib
import sys
from pathlib import Path
from urllib.parse import quote

import google_crc32c

_HEAD = """HTTP/1.1 200 OK
X-GUploader-UploadID: ABPtcPpx0G9m1Yl3eUuTqZkq0v5rXn2gqGm3hE8m4sQ9kF1cY7dWzRj6uT0aLbVx
Expires: Thu, 01 Jan 2026 00:00:00 GMT
Date: Thu, 01 Jan 2026 00:00:00 GMT
Cache-Control: private, max-age=0
Last-Modified: Thu, 01 Jan 2026 00:00:00 GMT
ETag: CIGk0N6y3ooDEAE=
X-Goog-Generation: 1767225600000001
X-Goog-Metageneration: 1
X-Goog-Stored-Content-Encoding: identity
X-Goog-Stored-Content-Length: {length}
X-Goog-Hash: crc32c={crc32c}
X-Goog-Hash: md5={md5}
X-Goog-Storage-Class: STANDARD
Content-Type: image/jpeg
Content-Length: {length}
Server: UploadServer

"""
_MISSING = b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n"


def _answer(data: bytes) -> bytes:
    crc32c = base64.b64encode(google_crc32c.value(data).to_bytes(4, "big")).decode()
    md5 = base64.b64encode(hashlib.md5(data).digest()).decode()
    head = _HEAD.format(length=len(data), crc32c=crc32c, md5=md5)
    return head.replace("\n", "\r\n").encode() + data


class _Connection(asyncio.Protocol):
    """One connection; its client sends one request at a time, without a body."""

    def __init__(self, answers: dict[bytes, bytes], delay: float) -> None:
        self._answers, self._delay = answers, delay
        self._received = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.WriteTransport)
        self._write = transport.write

    def data_received(self, data: bytes) -> None:
        self._received += data
        if self._received.endswith(b"\r\n\r\n"):
            target = self._received.split(b" ", 2)[1]
            self._received = b""
            answer = self._answers.get(target, _MISSING)
            asyncio.get_running_loop().call_later(self._delay, self._write, answer)


async def _serve(directory: Path, bucket: str, delay: float) -> None:
    answers = {
        f"/download/storage/v1/b/{bucket}/o/{quote(file.name, safe='~')}?alt=media".encode(): _answer(
            file.read_bytes()
        )
        for file in sorted(directory.iterdir())
    }
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: _Connection(answers, delay), "127.0.0.1", backlog=512)
    host, port = server.sockets[0].getsockname()
    print(f"http://{host}:{port}", flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(_serve(Path(sys.argv[1]), sys.argv[2], float(sys.argv[3])))
