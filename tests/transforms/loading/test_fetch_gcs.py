"""`fetch` of `gs://` objects from a GCS server and from one with broken answers."""

import base64
import gzip
import json
import multiprocessing
import ssl
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import google_crc32c
import pytest

from beamlabel.transforms.loading.fetch import Fetched, FetchOptions, fetch
from beamlabel.transforms.records import ImageError, Reason
from support import http_site
from support.gcs_server import Bucket
from support.http_site import BODY, Site, hang_up, reply, self_signed, serving, silence

OPTIONS = FetchOptions(max_bytes=1 << 20, deadline=30.0)
BRIEF = FetchOptions(max_bytes=1 << 20, deadline=1.2)


def refusal(uri: str, options: FetchOptions = OPTIONS) -> ImageError:
    return http_site.refusal(fetch, uri, options)


@pytest.mark.parametrize("name", ["a.jpg", "directory/ü 漢 b#c%20d:e?f=1&g+h.jpg", "a//b", "./a"])
def test_one_request_an_image(gcs: Bucket, name: str) -> None:
    uri = gcs.put(name, BODY)
    assert fetch(uri, OPTIONS).data == BODY
    assert [request.method for request in gcs.server.requests] == ["GET"]


@pytest.mark.parametrize("size", [1, 8191, 8192, 8193, 300_000])
def test_the_cap_is_exact(gcs: Bucket, size: int) -> None:
    uri = gcs.put("a.jpg", bytes(size))
    assert len(fetch(uri, FetchOptions(max_bytes=size)).data) == size
    gcs.put("a.jpg", bytes(size + 1))
    error = refusal(uri, FetchOptions(max_bytes=size))
    assert error.reason is Reason.TOO_MANY_BYTES
    assert f"--max_bytes {size}" in error.detail
    assert gcs.server.count("GET") == 2, "not tried again"


def test_an_empty_object(gcs: Bucket) -> None:
    assert refusal(gcs.put("a.jpg", b"")).reason is Reason.EMPTY_FILE


@pytest.mark.parametrize("name", ["missing.jpg", "a.jpg/"])
def test_a_missing_object_is_asked_for_once(gcs: Bucket, name: str) -> None:
    gcs.put("a.jpg", b"image")
    assert refusal(gcs.uri(name)).reason is Reason.NOT_FOUND
    assert len(gcs.server.requests) == 1


def test_a_missing_bucket(gcs: Bucket) -> None:
    assert refusal("gs://no-such-bucket/a.jpg").reason is Reason.NOT_FOUND


def test_what_names_no_object(gcs: Bucket) -> None:
    assert refusal(gcs.url).reason is Reason.NOT_A_FILE
    assert refusal(gcs.uri("")).reason is Reason.NOT_A_FILE
    assert refusal("gs:///a.jpg").reason is Reason.INVALID_URI
    assert not gcs.server.requests


@pytest.mark.parametrize(
    ("status", "reason"),
    [(401, Reason.FORBIDDEN), (403, Reason.FORBIDDEN), (400, Reason.FETCH_ERROR), (412, Reason.FETCH_ERROR)],
)
def test_a_permanent_status_is_asked_once(gcs: Bucket, status: int, reason: Reason) -> None:
    uri = gcs.put("a.jpg", b"image")
    gcs.server.fail_next(9, status)
    error = refusal(uri)
    assert error.reason is reason
    assert gcs.server.count("GET") == 1


@pytest.mark.parametrize("status", [408, 429, 500, 502, 503, 504])
def test_a_passing_status_is_tried_again(gcs: Bucket, status: int) -> None:
    uri = gcs.put("a.jpg", BODY)
    gcs.server.fail_next(2, status)
    assert fetch(uri, OPTIONS).data == BODY
    assert gcs.server.count("GET") == 3


def test_tries_end_at_the_deadline(gcs: Bucket) -> None:
    uri = gcs.put("a.jpg", BODY)
    gcs.server.fail_next(1000, 503)
    error = refusal(uri, BRIEF)
    assert error.reason is Reason.FETCH_ERROR
    assert "503" in error.detail
    assert gcs.server.count("GET") >= 2


def test_a_slow_server_is_given_up(gcs: Bucket) -> None:
    uri = gcs.put("a.jpg", BODY)
    gcs.server.delay(2.0)
    error = refusal(uri, BRIEF)
    assert error.reason is Reason.TIMEOUT
    assert "1.2 s" in error.detail


def test_sixty_four_threads(gcs: Bucket) -> None:
    uris = [gcs.put(f"{i}.jpg", b"image %d" % i * 1000) for i in range(200)]
    with ThreadPoolExecutor(64) as pool:
        for i, fetched in enumerate(pool.map(lambda uri: fetch(uri, OPTIONS), uris)):
            assert fetched.data == b"image %d" % i * 1000
    assert len(gcs.server.requests) == 200


def test_a_forked_process(gcs: Bucket) -> None:
    uri = gcs.put("a.jpg", BODY)
    assert fetch(uri, OPTIONS).data == BODY
    with multiprocessing.get_context("fork").Pool(2) as pool:
        assert [fetched.data for fetched in pool.starmap(fetch, [(uri, OPTIONS)] * 8)] == [BODY] * 8
    assert fetch(uri, OPTIONS).data == BODY


@pytest.fixture
def site(monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    """A server in place of GCS whose answers for ``gs://b/a`` the test sets."""
    with serving() as site:
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", site.base)
        yield site


A = "/download/storage/v1/b/b/o/a?alt=media"


def _crc32c(data: bytes) -> str:
    return "crc32c=" + base64.b64encode(google_crc32c.Checksum(data).digest()).decode()


def test_the_version_is_the_generation(site: Site) -> None:
    site.on(A, reply(X_Goog_Generation="1700000000000001", ETag="e"))
    assert fetch("gs://b/a", OPTIONS) == Fetched(BODY, "1700000000000001")


@pytest.fixture
def account(site: Site, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Site:
    """The site with a service account whose tokens are ``t0``, ``t1``, ... in the order of issue."""
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import rsa

    key = rsa.generate_private_key(65537, 2048).private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    grants = [json.dumps({"access_token": f"t{i}", "expires_in": 3600}).encode() for i in range(9)]
    info = {"type": "service_account", "client_email": "a@b", "private_key": key.decode(), "project_id": "p"}
    info["token_uri"] = site.on("/token", *(reply(body=grant, Connection="close") for grant in grants))
    (tmp_path / "account.json").write_text(json.dumps(info))
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(tmp_path / "account.json"))
    monkeypatch.delenv("STORAGE_EMULATOR_HOST")
    monkeypatch.setenv("API_ENDPOINT_OVERRIDE", site.base)
    return site


def _tokens(site: Site) -> list[str | None]:
    """The token of each request for the image."""
    requests = [headers for path, headers, _ in site.requests if path == A]
    return [
        {name.lower(): value for name, value in headers.items()}.get("authorization") for headers in requests
    ]


def test_threads_share_one_token(account: Site) -> None:
    account.on(A, reply())
    with ThreadPoolExecutor(16) as pool:
        assert {fetched.data for fetched in pool.map(fetch, ["gs://b/a"] * 64, [OPTIONS] * 64)} == {BODY}
    assert _tokens(account) == ["Bearer t0"] * 64
    assert account.count("/token") == 1


def test_a_refused_token_is_replaced(account: Site) -> None:
    account.on(A, reply(), reply(401), reply(401), reply())
    assert fetch("gs://b/a", OPTIONS).data == BODY
    assert fetch("gs://b/a", OPTIONS).data == BODY
    assert _tokens(account)[-1] == "Bearer t1"
    account.on(A, reply(401))
    assert refusal("gs://b/a").reason is Reason.FORBIDDEN


def test_a_proxy_of_the_environment_is_used(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same holds for the client itself; the request then has the whole URL."""
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", "http://storage.invalid")
    monkeypatch.setenv("http_proxy", site.base)
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.delenv("NO_PROXY", raising=False)
    site.on("http://storage.invalid" + A, reply())
    assert fetch("gs://b/a", OPTIONS).data == BODY


def test_a_host_that_the_environment_exempts_from_the_proxy(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("http_proxy", "http://proxy.invalid:1")
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    site.on(A, reply())
    assert fetch("gs://b/a", OPTIONS).data == BODY


def test_tls_trusts_the_authorities_that_the_environment_names(
    site: Site, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    certificate = self_signed("localhost", tmp_path)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    site.server.socket = context.wrap_socket(site.server.socket, server_side=True)
    site.on(A, reply())
    port = site.server.server_port
    by_name, by_address = f"https://localhost:{port}", f"https://127.0.0.1:{port}"
    for bundle in ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"):
        monkeypatch.delenv(bundle, raising=False)
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", by_name)
    assert "self-signed certificate" in refusal("gs://b/a", BRIEF).detail
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(certificate))
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", by_address)
    assert "127.0.0.1" in refusal("gs://b/a", BRIEF).detail, "the certificate does not have its name"
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", by_name)
    assert fetch("gs://b/a", OPTIONS).data == BODY


def test_tensorflow_may_be_there_first(site: Site) -> None:
    """TensorFlow brings another libcurl, and libraries that are loaded later find its functions."""
    pytest.importorskip("tensorflow")
    site.on(A, reply())
    program = (
        "import tensorflow, sys; from beamlabel.transforms.loading.fetch import fetch, FetchOptions\n"
        "sys.stdout.buffer.write(fetch('gs://b/a', FetchOptions(max_bytes=1 << 20, deadline=30.0)).data)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, check=False)
    assert done.stdout == BODY, done.stderr.decode()


def test_a_redirect_is_not_followed(site: Site) -> None:
    site.on(A, reply(302, Location=site.base + "/elsewhere"))
    site.on("/elsewhere", reply())
    assert refusal("gs://b/a").reason is Reason.FETCH_ERROR
    assert site.count("/elsewhere") == 0


def test_a_long_message_of_an_error_does_not_hide_it(site: Site) -> None:
    """Otherwise a missing object would look too large."""
    site.on(A, reply(404, body=bytes(100_000)))
    assert refusal("gs://b/a", FetchOptions(max_bytes=1000)).reason is Reason.NOT_FOUND


def test_names_of_dots(site: Site) -> None:
    """A client must not resolve them as path segments."""
    site.on("/download/storage/v1/b/b/o/..?alt=media", reply())
    assert fetch("gs://b/..", OPTIONS).data == BODY


def test_a_broken_content_encoding(site: Site) -> None:
    site.on(A, reply(Content_Encoding="gzip"))
    assert refusal("gs://b/a").reason is Reason.FETCH_ERROR
    assert site.count(A) == 1


def test_chunks_without_a_length(site: Site) -> None:
    def chunked(handler: BaseHTTPRequestHandler) -> None:
        handler.wfile.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        for part in (BODY[:9000], BODY[9000:]):
            handler.wfile.write(b"%x\r\n%s\r\n" % (len(part), part))
        handler.wfile.write(b"0\r\n\r\n")

    site.on(A, chunked)
    assert fetch("gs://b/a", OPTIONS).data == BODY
    assert fetch("gs://b/a", OPTIONS).data == BODY
    assert len({address for _, _, address in site.requests}) == 1, "the connection is kept"


def test_a_damaged_transfer_is_tried_again(site: Site) -> None:
    """All bytes arrive, but one is wrong, and only the checksum reveals it."""
    damaged = reply(body=BODY[:-1] + b"?", X_Goog_Hash=_crc32c(BODY))
    site.on(A, damaged, reply(X_Goog_Hash=_crc32c(BODY)))
    assert fetch("gs://b/a", OPTIONS).data == BODY
    assert site.count(A) == 2
    site.on(A, damaged)
    error = refusal("gs://b/a", BRIEF)
    assert error.reason is Reason.FETCH_ERROR
    assert "checksum" in error.detail


def test_broken_connections_are_tried_again(site: Site) -> None:
    def cut(handler: BaseHTTPRequestHandler) -> None:
        reply(Content_Length=str(len(BODY) + 5))(handler)
        handler.close_connection = True

    site.on(A, hang_up, cut, reply())
    assert fetch("gs://b/a", OPTIONS).data == BODY
    assert site.count(A) == 3
    site.on(A, cut)
    assert refusal("gs://b/a", BRIEF).reason is Reason.FETCH_ERROR


def test_silence_is_asked_again_and_given_up(site: Site) -> None:
    site.on(A, silence, reply())
    assert fetch("gs://b/a", FetchOptions(deadline=3.0)).data == BODY
    site.on(A, silence)
    assert refusal("gs://b/a", BRIEF).reason is Reason.TIMEOUT

    def stuck(handler: BaseHTTPRequestHandler) -> None:
        reply(Content_Length=str(len(BODY) + 5))(handler)
        handler.wfile.flush()
        silence(handler)

    site.on(A, stuck)
    assert refusal("gs://b/a", BRIEF).reason is Reason.TIMEOUT


def test_a_slow_body_is_cut_at_the_deadline(site: Site) -> None:
    """The body never stalls and would be complete after 20 s."""

    def slow(handler: BaseHTTPRequestHandler) -> None:
        handler.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Length: 819200\r\n\r\n")
        for _ in range(100):
            handler.wfile.write(bytes(8192))
            time.sleep(0.2)

    site.on(A, slow)
    assert refusal("gs://b/a", BRIEF).reason is Reason.TIMEOUT
    assert site.count(A) == 1


def test_gzip_transcoding_is_undone_under_the_cap(site: Site) -> None:
    """GCS sends objects with ``Content-Encoding: gzip`` unchanged; the checksum covers the packed bytes."""
    packed = gzip.compress(bytes(500_000))
    site.on(A, reply(body=packed, Content_Encoding="gzip", X_Goog_Hash=_crc32c(packed)))
    assert fetch("gs://b/a", OPTIONS).data == bytes(500_000)
    assert refusal("gs://b/a", FetchOptions(max_bytes=100_000)).reason is Reason.TOO_MANY_BYTES


def test_nobody_listens(monkeypatch: pytest.MonkeyPatch) -> None:
    with serving() as gone:
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", gone.base)
    error = refusal("gs://b/a", BRIEF)
    assert error.reason is Reason.FETCH_ERROR
