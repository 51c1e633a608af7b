"""`http_fetch.get` against an HTTP server on the loopback interface with injected faults."""

import gzip
import os
import socket
import ssl
import time
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import pytest

from beamlabel.transforms.loading import http_fetch
from beamlabel.transforms.loading.http_fetch import MAX_REDIRECTS, MAX_TRIES
from beamlabel.transforms.loading.http_steps import get
from beamlabel.transforms.loading.web import addresses
from beamlabel.transforms.records import ImageError, Reason
from support import http_site
from support.http_site import BODY, Site, drip, hang_up, reply, self_signed, silence


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_fetch, "FIRST_PAUSE", 0.01)


def fetch(url: str, **options: Any) -> tuple[bytes, str | None]:
    return get(url, **{"max_bytes": 1 << 20, "deadline": 20.0, "allow_private_hosts": True, **options})


def refusal(url: str, **options: Any) -> ImageError:
    return http_site.refusal(fetch, url, **options)


@pytest.mark.parametrize(
    ("headers", "version"),
    [
        ({"ETag": '"a1"', "Last_Modified": "Mon, 01 Jan 2024 00:00:00 GMT"}, '"a1"'),
        ({"Last_Modified": "Mon, 01 Jan 2024 00:00:00 GMT"}, "Mon, 01 Jan 2024 00:00:00 GMT"),
        ({}, None),
    ],
)
def test_the_body_and_its_version(site: Site, headers: dict[str, str], version: str | None) -> None:
    assert fetch(site.on("/a.jpg", reply(**headers))) == (BODY, version)
    sent = site.requests[0][1]
    assert sent["User-Agent"].startswith("beamlabel/")
    assert "Authorization" not in sent


def test_odd_names_are_percent_encoded(site: Site) -> None:
    site.on("/%C3%BC%20b.jpg?w=%20", reply())
    assert fetch(f"{site.base}/ü b.jpg?w=%20#part")[0] == BODY


def test_user_and_password_become_basic_authentication(site: Site) -> None:
    site.on("/a.jpg", reply())
    fetch(f"{site.base}/a.jpg".replace("http://", "http://user:p%40ss@"))
    assert site.requests[0][1]["Authorization"] == "Basic dXNlcjpwQHNz"


@pytest.mark.parametrize(
    ("status", "reason"),
    [
        (404, Reason.NOT_FOUND),
        (410, Reason.NOT_FOUND),
        (401, Reason.FORBIDDEN),
        (403, Reason.FORBIDDEN),
        (400, Reason.FETCH_ERROR),
        (451, Reason.FETCH_ERROR),
        (304, Reason.FETCH_ERROR),
    ],
)
def test_a_permanent_status_is_asked_once(site: Site, status: int, reason: Reason) -> None:
    error = refusal(site.on("/a.jpg", reply(status, b"")))
    assert error.reason is reason
    assert str(status) in error.detail
    assert site.count("/a.jpg") == 1


@pytest.mark.parametrize("status", [408, 429, 500, 502, 503, 504])
def test_a_passing_status_is_tried_again(site: Site, status: int) -> None:
    assert fetch(site.on("/a.jpg", reply(status, b"wait"), reply(status), reply()))[0] == BODY
    assert site.count("/a.jpg") == 3


def test_tries_come_to_an_end(site: Site) -> None:
    error = refusal(site.on("/a.jpg", reply(503, b"")))
    assert error.reason is Reason.FETCH_ERROR
    assert error.detail == f"status 503 Service Unavailable, after {MAX_TRIES} tries"
    assert site.count("/a.jpg") == MAX_TRIES


def test_retry_after_is_respected(site: Site) -> None:
    asked: list[float] = []

    def late(handler: BaseHTTPRequestHandler) -> None:
        asked.append(time.monotonic())
        reply(*(() if len(asked) > 1 else (429, b"")), **{"Retry-After": "1"})(handler)

    fetch(site.on("/a.jpg", late))
    assert asked[1] - asked[0] >= 1


def test_retry_after_beyond_the_deadline_is_not_awaited(site: Site) -> None:
    error = refusal(site.on("/a.jpg", reply(429, b"", Retry_After="3600")))
    assert error.reason is Reason.FETCH_ERROR
    assert site.count("/a.jpg") == 1


def test_a_broken_retry_after_does_no_harm(site: Site) -> None:
    assert fetch(site.on("/a.jpg", reply(503, b"", Retry_After="soon"), reply()))[0] == BODY


def test_broken_connections_are_tried_again(site: Site) -> None:
    short = reply(Content_Length=str(len(BODY) + 5))

    def cut(handler: BaseHTTPRequestHandler) -> None:
        short(handler)
        handler.close_connection = True

    assert fetch(site.on("/a.jpg", hang_up, cut, reply()))[0] == BODY
    error = refusal(site.on("/short.jpg", cut))
    assert error.reason is Reason.FETCH_ERROR
    assert "missing" in error.detail
    assert site.count("/short.jpg") == MAX_TRIES


def test_a_status_with_a_broken_body_is_still_that_status(site: Site) -> None:
    def cut(handler: BaseHTTPRequestHandler) -> None:
        reply(404, b"gone", Content_Length="100")(handler)
        handler.close_connection = True

    def stuck(handler: BaseHTTPRequestHandler) -> None:
        reply(404, b"gone", Content_Length="100")(handler)
        silence(handler)

    for answer in (cut, stuck):
        assert refusal(site.on("/a.jpg", answer), deadline=1.0).reason is Reason.NOT_FOUND
    assert site.count("/a.jpg") == 2


def test_nobody_listens() -> None:
    with socket.socket() as taken:  # bound but not listening: refuses connections, keeps the port
        taken.bind(("127.0.0.1", 0))
        error = refusal(f"http://127.0.0.1:{taken.getsockname()[1]}/a.jpg?sig=secret")
    assert error.reason is Reason.FETCH_ERROR
    assert "refused" in error.detail
    assert "secret" not in error.detail


def test_a_silent_server_is_asked_again_and_given_up(site: Site) -> None:
    assert fetch(site.on("/once.jpg", silence, reply()), deadline=3.0)[0] == BODY
    error = refusal(site.on("/a.jpg", silence), deadline=3.0)
    assert error.reason is Reason.TIMEOUT
    assert "3 s" in error.detail
    assert site.count("/a.jpg") >= 2


@pytest.mark.parametrize(
    "head",
    [
        pytest.param(b"HTTP/1.1 200 OK\r\nX-Slow: ", id="headers"),
        pytest.param(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n", id="body"),
        pytest.param(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3e8\r\n", id="chunked"),
        pytest.param(b"HTTP/1.1 404 Not Found\r\nX-Slow: ", id="headers of an error"),
    ],
)
def test_a_dripping_server_is_cut_at_the_deadline(site: Site, head: bytes) -> None:
    """No pause exceeds the socket's timeout; the tail would take 20 s without a timeout."""
    assert refusal(site.on("/a.jpg", drip(head)), deadline=0.3).reason is Reason.TIMEOUT


def test_a_length_above_the_cap_is_refused_unread(site: Site) -> None:
    url = site.on("/a.jpg", reply(body=b"", Content_Length=str(1 << 40)))
    error = refusal(url, max_bytes=1000)
    assert error.reason is Reason.TOO_MANY_BYTES
    assert str(1 << 40) in error.detail
    assert "--max_bytes 1000" in error.detail
    assert site.count("/a.jpg") == 1


def test_an_endless_body_is_cut_at_the_cap(site: Site) -> None:
    sent = 0

    def endless(handler: BaseHTTPRequestHandler) -> None:
        nonlocal sent
        handler.wfile.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        while True:
            handler.wfile.write(b"2710\r\n" + bytes(10_000) + b"\r\n")
            sent += 10_000

    assert refusal(site.on("/a.jpg", endless), max_bytes=100_000).reason is Reason.TOO_MANY_BYTES
    assert site.count("/a.jpg") == 1


@pytest.mark.parametrize("size", [0, 1, 65535, 65536, 65537, 200_000])
def test_the_cap_is_exact(site: Site, size: int) -> None:
    url = site.on("/a.jpg", reply(body=bytes(size)))
    assert fetch(url, max_bytes=max(size, 1))[0] == bytes(size)
    if size > 1:
        assert refusal(url, max_bytes=size - 1).reason is Reason.TOO_MANY_BYTES


def test_gzip_is_decoded_under_the_cap(site: Site) -> None:
    packed = gzip.compress(bytes(500_000))
    url = site.on("/a.jpg", reply(body=packed, Content_Encoding="gzip"))
    assert fetch(url)[0] == bytes(500_000)
    assert refusal(url, max_bytes=100_000).reason is Reason.TOO_MANY_BYTES
    broken = site.on("/broken.jpg", reply(body=b"no gzip at all", Content_Encoding="gzip"))
    assert refusal(broken).reason is Reason.FETCH_ERROR
    assert site.count("/broken.jpg") == 1


def test_redirects_are_followed(site: Site) -> None:
    site.on("/b/c.jpg", reply(ETag="c"))
    site.on("/b", reply(302, b"over there", Location="/b/c.jpg"))
    assert fetch(site.on("/a", reply(301, b"", Location=f"{site.base}/b"))) == (BODY, "c")
    assert len({client for _, _, client in site.requests}) == 1, "one connection served them all"


def test_redirects_come_to_an_end(site: Site) -> None:
    assert refusal(site.on("/a", reply(302, b"", Location="/a"))).reason is Reason.FETCH_ERROR
    assert site.count("/a") == MAX_REDIRECTS + 1


@pytest.mark.parametrize("target", ["file:///etc/passwd", "ftp://127.0.0.1/a.jpg", "gopher://127.0.0.1/"])
def test_a_redirect_to_another_scheme_is_refused(site: Site, target: str) -> None:
    error = refusal(site.on("/a", reply(302, b"", Location=target)))
    assert error.reason is Reason.NOT_ALLOWED
    assert target.split(":")[0] in error.detail


@pytest.mark.parametrize("url", ["http://", "http:///a.jpg", "http://[::1/a.jpg", "http://h:99999999/a"])
def test_an_invalid_url_is_refused(url: str) -> None:
    assert refusal(url).reason is Reason.INVALID_URI


@pytest.mark.parametrize("target", ["http://", "http://[::1/a.jpg", "http://h:99999999/a"])
def test_a_redirect_to_an_invalid_url_is_the_servers_fault(site: Site, target: str) -> None:
    assert refusal(site.on("/a", reply(302, b"", Location=target))).reason is Reason.FETCH_ERROR


def test_sixty_four_threads(site: Site) -> None:
    urls = [site.on(f"/{i}.jpg", reply(body=b"%d" % i)) for i in range(256)]
    with ThreadPoolExecutor(64) as pool:
        assert [body for body, _ in pool.map(fetch, urls)] == [b"%d" % i for i in range(256)]
    assert len({client for _, _, client in site.requests}) <= 64, "connections are used again"


def test_tls_verifies_the_name(site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The connection goes to the checked address, and the certificate must match the name."""
    certificate = self_signed("localhost", tmp_path)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    site.server.socket = context.wrap_socket(site.server.socket, server_side=True)
    site.on("/a.jpg", reply())
    port = site.server.server_port
    assert "certificate" in refusal(f"https://localhost:{port}/a.jpg").detail
    monkeypatch.setenv("SSL_CERT_FILE", os.fspath(certificate))
    assert fetch(f"https://localhost:{port}/a.jpg")[0] == BODY
    monkeypatch.setattr(addresses, "is_public", lambda address: True)  # loopback stands for the internet
    assert fetch(f"https://localhost:{port}/a.jpg", allow_private_hosts=False)[0] == BODY
    assert "127.0.0.1" in refusal(f"https://127.0.0.1:{port}/a.jpg", allow_private_hosts=False).detail
