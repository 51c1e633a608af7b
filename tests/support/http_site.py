"""An HTTP server on the loopback interface whose answers are functions, for the tests of fetching."""

import contextlib
import datetime
import pickle
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from beamlabel.transforms.records import ImageError, Stage

Answer = Callable[[BaseHTTPRequestHandler], None]
BODY = bytes(range(256)) * 40


class Site:
    """A server whose answers are functions; it records the requests and their connections."""

    def __init__(self) -> None:
        self.answers: dict[str, Answer] = {}
        self.requests: list[tuple[str, dict[str, str], Any]] = []
        site = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                site.requests.append((self.path, dict(self.headers), self.client_address))
                try:
                    site.answers[self.path](self)
                except OSError:  # the client hung up, as it should
                    self.close_connection = True

            def do_POST(self) -> None:
                self.rfile.read(int(self.headers["Content-Length"]))
                self.do_GET()

            def log_message(self, *args: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.server.handle_error = lambda *_: None  # type: ignore[method-assign]  # clients hang up here
        self.base = f"http://127.0.0.1:{self.server.server_port}"

    def on(self, path: str, *answers: Answer) -> str:
        """The URL of a path that gives these answers in turn, and the last one from then on."""
        left = list(answers)
        self.answers[path] = lambda handler: (left.pop(0) if len(left) > 1 else left[0])(handler)
        return self.base + path

    def count(self, path: str) -> int:
        return sum(seen == path for seen, _, _ in self.requests)


@contextlib.contextmanager
def serving() -> Iterator[Site]:
    """A site that serves until the block ends."""
    site = Site()
    thread = threading.Thread(target=site.server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield site
    finally:
        site.server.shutdown()
        site.server.server_close()
        thread.join()


def reply(status: int = 200, body: bytes = BODY, **headers: str) -> Answer:
    def answer(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(status)
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        for name, value in {"Content-Length": str(len(body)), **named}.items():
            handler.send_header(name, value)
        handler.end_headers()
        handler.wfile.write(body)

    return answer


def drip(head: bytes, tail: bytes = b"x" * 1000) -> Answer:
    """Sends the head at once and the tail byte by byte with short pauses."""

    def answer(handler: BaseHTTPRequestHandler) -> None:
        handler.wfile.write(head)
        for byte in tail:
            handler.wfile.write(bytes([byte]))
            time.sleep(0.02)
        handler.close_connection = True

    return answer


def silence(handler: BaseHTTPRequestHandler) -> None:
    handler.connection.settimeout(10)
    handler.connection.recv(1)  # until the client hangs up
    handler.close_connection = True


def hang_up(handler: BaseHTTPRequestHandler) -> None:
    handler.close_connection = True


def refusal(fetch: Callable[..., object], location: str, *arguments: object, **options: object) -> ImageError:
    """The error of a refused fetch; checks that its stage is ``fetch`` and that it survives pickling."""
    with pytest.raises(ImageError) as caught:
        fetch(location, *arguments, **options)
    assert caught.value.stage is Stage.FETCH
    again = pickle.loads(pickle.dumps(caught.value))
    assert (type(again), again.reason) == (ImageError, caught.value.reason)
    return caught.value


def self_signed(name: str, directory: Path) -> Path:
    """A certificate for that name and its key in one file of the directory."""
    x509 = pytest.importorskip("cryptography.x509", reason="needs cryptography for the server's certificate")
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
    today = datetime.datetime.now(datetime.timezone.utc)
    certificate = (
        x509.CertificateBuilder(subject, subject, key.public_key(), x509.random_serial_number())
        .not_valid_before(today - datetime.timedelta(days=1))
        .not_valid_after(today + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
        .sign(key, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    path = directory / "server.pem"
    private = key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    path.write_bytes(private + certificate.public_bytes(pem))
    return path
