"""`fetch` of `s3://` objects from an S3 server and from one with broken answers."""

import multiprocessing
from concurrent.futures import ThreadPoolExecutor

import pytest

from beamlabel.transforms.loading.fetch import Fetched, FetchOptions, fetch
from beamlabel.transforms.records import ImageError, Reason
from support import http_site
from support.http_site import BODY
from support.s3_server import KEYS, S3Bucket

OPTIONS = FetchOptions(max_bytes=1 << 20, deadline=30.0)
BRIEF = FetchOptions(max_bytes=1 << 20, deadline=1.2)


def refusal(uri: str, options: FetchOptions = OPTIONS) -> ImageError:
    return http_site.refusal(fetch, uri, options)


@pytest.mark.parametrize(
    "name", ["a.jpg", "directory/ü 漢 b#c%20d:e?f=1&g+h~i.jpg", "a//b", "./a", "../a", "/a", "a/", " "]
)
def test_one_request_an_image(s3: S3Bucket, name: str) -> None:
    uri = s3.put(name, BODY)
    assert fetch(uri, OPTIONS) == Fetched(BODY, s3.etag(name))
    assert [request.method for request in s3.server.requests] == ["GET"]


def test_a_scheme_in_capitals(s3: S3Bucket) -> None:
    assert fetch("S3" + s3.put("a.jpg", BODY)[2:], OPTIONS).data == BODY


@pytest.mark.parametrize("size", [1, 8192, 300_000])
def test_the_cap_is_exact(s3: S3Bucket, size: int) -> None:
    uri = s3.put("a.jpg", bytes(size))
    assert len(fetch(uri, FetchOptions(max_bytes=size)).data) == size
    s3.put("a.jpg", bytes(size + 1))
    assert refusal(uri, FetchOptions(max_bytes=size)).reason is Reason.TOO_MANY_BYTES
    assert s3.server.count("GET") == 2, "not tried again"


def test_what_is_no_image(s3: S3Bucket) -> None:
    assert refusal(s3.put("empty.jpg", b"")).reason is Reason.EMPTY_FILE
    s3.server.forget()
    assert refusal(s3.url).reason is Reason.NOT_A_FILE
    assert refusal(s3.uri("")).reason is Reason.NOT_A_FILE
    assert refusal("s3:///a.jpg").reason is Reason.INVALID_URI
    assert not s3.server.requests
    assert refusal(s3.uri("missing.jpg")).reason is Reason.NOT_FOUND
    assert refusal("s3://no-such-bucket/a.jpg").reason is Reason.NOT_FOUND
    assert len(s3.server.requests) == 2, "each is asked for once"


@pytest.mark.parametrize(
    ("status", "reason", "requests"),
    [
        (401, Reason.FORBIDDEN, 1),
        (403, Reason.FORBIDDEN, 1),
        # The client asks again, since it understands more answers.
        (400, Reason.FETCH_ERROR, 2),
        (412, Reason.FETCH_ERROR, 2),
    ],
)
def test_a_permanent_status_is_not_tried_again(
    s3: S3Bucket, status: int, reason: Reason, requests: int
) -> None:
    uri = s3.put("a.jpg", BODY)
    s3.server.fail_next(9, status)
    error = refusal(uri)
    assert error.reason is reason
    assert str(status) in error.detail
    assert "Signature" not in error.detail
    assert s3.server.count() == requests


@pytest.mark.parametrize("status", [408, 429, 500, 502, 503, 504])
def test_a_passing_status_is_tried_again(s3: S3Bucket, status: int) -> None:
    uri = s3.put("a.jpg", BODY)
    s3.server.fail_next(1, status)
    assert fetch(uri, OPTIONS).data == BODY
    assert s3.server.count("GET") == 2


def test_half_a_body_is_asked_for_again(s3: S3Bucket) -> None:
    uri = s3.put("a.jpg", BODY)
    s3.server.cut_next(2)
    assert fetch(uri, OPTIONS).data == BODY
    assert s3.server.count("GET") == 3


def test_what_the_client_understands_better_it_asks_for(s3: S3Bucket) -> None:
    """A bucket in another region answers 301, and the client follows."""
    uri = s3.put("a.jpg", BODY)
    s3.server.fail_next(1, 400)
    assert fetch(uri, OPTIONS) == Fetched(BODY, s3.etag("a.jpg"))


def test_tries_end_at_the_deadline(s3: S3Bucket) -> None:
    uri = s3.put("a.jpg", BODY)
    s3.server.fail_next(1000, 503)
    error = refusal(uri, BRIEF)
    assert error.reason is Reason.FETCH_ERROR
    assert "503" in error.detail
    assert s3.server.count("GET") >= 2


def test_a_slow_server_is_given_up(s3: S3Bucket) -> None:
    uri = s3.put("a.jpg", BODY)
    s3.server.delay(2.0)
    assert refusal(uri, BRIEF).reason is Reason.TIMEOUT


def test_without_credentials_requests_are_not_signed(s3: S3Bucket, monkeypatch: pytest.MonkeyPatch) -> None:
    public, private = s3.put("public.jpg", BODY), s3.put("private.jpg", BODY)
    s3.server.client.put_object_acl(Bucket=s3.bucket, Key="public.jpg", ACL="public-read")
    for name in set(KEYS) - {"AWS_EC2_METADATA_DISABLED"}:
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/nowhere")
    monkeypatch.setenv("AWS_CONFIG_FILE", "/nowhere")
    assert fetch(public, OPTIONS).data == BODY
    assert refusal(private).reason is Reason.FORBIDDEN
    assert not any(request.query for request in s3.server.requests)


def test_threads_and_forked_processes(s3: S3Bucket) -> None:
    uris = [s3.put(f"{i}.jpg", b"image %d" % i * 100) for i in range(40)]
    with ThreadPoolExecutor(16) as pool:
        for i, fetched in enumerate(pool.map(lambda uri: fetch(uri, OPTIONS), uris)):
            assert fetched.data == b"image %d" % i * 100
    assert len(s3.server.requests) == 40
    with multiprocessing.get_context("fork").Pool(2) as pool:
        assert [found.data for found in pool.starmap(fetch, [(uris[0], OPTIONS)] * 4)] == [
            b"image 0" * 100
        ] * 4
