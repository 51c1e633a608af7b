"""Requests to web servers: headers, cookies, robots tags, turns, and requested pauses."""

import contextlib
import threading
import time
from collections.abc import Iterator
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler
from typing import Any

import apache_beam as beam
import pytest
from apache_beam.runners.portability.fn_api_runner import FnApiRunner
from apache_beam.testing.util import assert_that, equal_to
from apache_beam.transforms.window import GlobalWindow

from beamlabel.transforms.decoding.decode import DecodeOptions
from beamlabel.transforms.load_images import LoadImages
from beamlabel.transforms.loading import http_fetch
from beamlabel.transforms.loading.fetch import FetchOptions
from beamlabel.transforms.loading.http_steps import get
from beamlabel.transforms.loading.load_images import LoadImagesDoFn
from beamlabel.transforms.loading.load_options import LoadOptions
from beamlabel.transforms.loading.web.host_gate import host_gate
from beamlabel.transforms.loading.web.http_options import HttpOptions
from beamlabel.transforms.records import ImageError, ImageRef, LoadedImage, Reason
from support import http_site
from support.http_site import BODY, Answer, Site, reply, serving
from support.jobs import photos

SECRETS = HttpOptions(headers=(("Authorization", "Bearer s3cret"), ("X-Key", "k3y"), ("Cookie", "mine=1")))


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_fetch, "FIRST_PAUSE", 0.01)


@pytest.fixture
def other() -> Iterator[Site]:
    """Another origin: the same host at another port."""
    with serving() as site:
        yield site


def fetch(url: str, **options: Any) -> tuple[bytes, str | None]:
    return get(url, **{"max_bytes": 1 << 20, "deadline": 20.0, "allow_private_hosts": True, **options})


def refusal(url: str, **options: Any) -> ImageError:
    return http_site.refusal(fetch, url, **options)


def sent(site: Site, path: str) -> dict[str, str]:
    """The headers of the last request for a path, by lower-case name."""
    return {
        name.lower(): value
        for name, value in next(
            headers for seen, headers, _ in reversed(site.requests) if seen == path
        ).items()
    }


def test_headers_are_sent(site: Site) -> None:
    more = HttpOptions(headers=(*SECRETS.headers, ("accept", "image/png"), ("X-Name", "ü")))
    fetch(site.on("/a.jpg", reply()), options=more)
    headers = sent(site, "/a.jpg")
    assert headers["authorization"] == "Bearer s3cret"
    assert headers["x-key"] == "k3y"
    assert headers["cookie"] == "mine=1"
    assert headers["accept"] == "image/png"
    assert headers["x-name"].encode("latin-1").decode() == "ü"
    fetch(site.on("/b.jpg", reply()), options=HttpOptions(user_agent="me/1 (+mailto:me@example.org)"))
    assert sent(site, "/b.jpg")["user-agent"] == "me/1 (+mailto:me@example.org)"
    assert "x-key" not in sent(site, "/b.jpg"), "though the connection is the same"
    assert "cookie" not in sent(site, "/b.jpg")


def test_the_password_of_a_url_goes_before_a_header(site: Site) -> None:
    site.on("/a.jpg", reply())
    fetch(f"{site.base}/a.jpg".replace("http://", "http://user:p%40ss@"), options=SECRETS)
    assert sent(site, "/a.jpg")["authorization"] == "Basic dXNlcjpwQHNz"


def test_secrets_go_to_no_other_origin(site: Site, other: Site) -> None:
    other.on("/b.jpg", reply(302, b"", Location=f"{site.base}/c.jpg"))
    site.on("/c.jpg", reply(302, b"", Location="/d.jpg"))
    site.on("/d.jpg", reply())
    url = site.on("/a.jpg", reply(302, b"", Location=f"{other.base}/b.jpg"))
    for one in (url, url.replace("http://", "http://user:s3cret@")):
        assert fetch(one, options=SECRETS)[0] == BODY
        assert not {"authorization", "x-key", "cookie"} & sent(other, "/b.jpg").keys()
        assert sent(site, "/d.jpg").keys() >= {"authorization", "x-key", "cookie"}, "its own, again"


def test_no_detail_holds_a_secret(site: Site) -> None:
    for status in (400, 401, 404, 503):
        error = refusal(site.on("/a.jpg", reply(status, b"Bearer s3cret k3y")), options=SECRETS, deadline=1.0)
        assert not any(secret in error.detail for secret in ("s3cret", "k3y", "mine"))


def test_cookies_are_kept_within_an_image(site: Site, other: Site) -> None:
    site.on("/a", reply(302, b"", Set_Cookie="session=1; Path=/", Location="/b"))
    site.on("/b", reply(302, b"", Set_Cookie="more=2; Path=/", Location="/c.jpg"))
    site.on("/c.jpg", reply())
    assert fetch(f"{site.base}/a")[0] == BODY
    assert "cookie" not in sent(site, "/a")
    assert sent(site, "/b")["cookie"] == "session=1"
    assert set(sent(site, "/c.jpg")["cookie"].split("; ")) == {"session=1", "more=2"}
    fetch(f"{site.base}/c.jpg")
    assert "cookie" not in sent(site, "/c.jpg"), "another image"
    fetch(f"{site.base}/a", options=HttpOptions(headers=(("Cookie", "mine=1"),)))
    assert set(sent(site, "/b")["cookie"].split("; ")) == {"session=1", "mine=1"}, "one header"


def test_a_site_that_refuses_clients_without_a_cookie(site: Site) -> None:
    """The site redirects to the same URL with a cookie: a loop for clients without cookies."""

    def gate(handler: BaseHTTPRequestHandler) -> None:
        if "pass=1" in handler.headers.get("Cookie", ""):
            reply()(handler)
        else:
            reply(302, b"", Set_Cookie="pass=1", Location=handler.path)(handler)

    assert fetch(site.on("/a.jpg", gate))[0] == BODY
    assert fetch(site.on("/a.jpg", gate))[0] == BODY


def test_a_location_of_raw_utf8(site: Site) -> None:
    def moved(handler: BaseHTTPRequestHandler) -> None:
        head = "HTTP/1.1 302 Found\r\nContent-Length: 0\r\nLocation: /ü/漢 字.jpg?x=ß\r\n\r\n"
        handler.wfile.write(head.encode())

    site.on("/%C3%BC/%E6%BC%A2%20%E5%AD%97.jpg?x=%C3%9F", reply())
    assert fetch(site.on("/a.jpg", moved))[0] == BODY


def _tagged(*tags: str, status: int = 200, body: bytes = BODY, location: str = "") -> Answer:
    def answer(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(status)
        for tag in tags:
            handler.send_header("X-Robots-Tag", tag)
        if location:
            handler.send_header("Location", location)
        handler.send_header("Content-Length", str(len(body)))
        handler.end_headers()
        handler.wfile.write(body)

    return answer


def test_a_robots_tag_is_honoured(site: Site) -> None:
    for tags in (["noai"], ["noindex", "otherbot: nofollow, NoImageAI", "beamlabel: noindex, NoImageAI"]):
        error = refusal(site.on("/a.jpg", _tagged(*tags)))
        assert error.reason is Reason.NOT_ALLOWED
        assert "--ignore_robots_tag" in error.detail
        assert (
            fetch(site.on("/a.jpg", _tagged(*tags)), options=HttpOptions(ignore_robots_tag=True))[0] == BODY
        )
    assert fetch(site.on("/a.jpg", _tagged("otherbot: noai", "noindex")))[0] == BODY
    redirect = site.on("/a", _tagged("noai", status=302, body=b"", location="/b.jpg"))
    site.on("/b.jpg", reply())
    assert refusal(redirect).reason is Reason.NOT_ALLOWED, "by the redirecting site"
    assert site.count("/b.jpg") == 0
    site.on("/b.jpg", _tagged("noimageai"))
    assert refusal(site.on("/a", reply(302, b"", Location="/b.jpg"))).reason is Reason.NOT_ALLOWED
    assert refusal(site.on("/c.jpg", _tagged("noai", status=404))).reason is Reason.NOT_FOUND


def test_the_body_of_a_refused_image_is_not_awaited(site: Site) -> None:
    """The body never comes, so waiting for it would reach the deadline."""

    def headers_only(handler: BaseHTTPRequestHandler) -> None:
        handler.wfile.write(b"HTTP/1.1 200 OK\r\nX-Robots-Tag: noai\r\nContent-Length: 100\r\n\r\n")
        handler.connection.recv(1)  # until the client hangs up
        handler.close_connection = True

    assert refusal(site.on("/a.jpg", headers_only)).reason is Reason.NOT_ALLOWED


class Concurrency:
    """An answer that counts its concurrent uses."""

    def __init__(self, body: bytes) -> None:
        self.now = self.most = 0
        self._body, self._lock = body, threading.Lock()

    def __call__(self, handler: BaseHTTPRequestHandler) -> None:
        with self._lock:
            self.now += 1
            self.most = max(self.most, self.now)
        time.sleep(0.01)
        with self._lock:
            self.now -= 1
        reply(body=self._body)(handler)


@pytest.fixture
def image(tmp_path: Any) -> bytes:
    return photos(tmp_path, 1)[0].read_bytes()


LEFT: list[str] = []


def note(image: Any) -> str:
    assert isinstance(image, LoadedImage), image
    LEFT.append(image.ref.uri)
    return image.ref.uri


def load(uris: list[str], per_host: int, **options: Any) -> list[str]:
    """Loads the images in one bundle; returns their URIs in the order in which they left."""
    LEFT.clear()
    refs = [ImageRef(uri, uri, uri) for uri in uris]
    fetching = FetchOptions(
        deadline=30.0, allow_http=True, allow_private_hosts=True, http=HttpOptions(per_host=per_host)
    )
    loading = LoadOptions(fetching, DecodeOptions(height=8, width=8), **options)
    with beam.Pipeline(runner=FnApiRunner()) as p:
        loaded = p | beam.Create([refs], reshuffle=False) | beam.FlatMap(lambda some: some)
        loaded |= LoadImages.with_options(loading)
        assert_that(loaded | beam.Map(note), equal_to(list(uris)))
    return LEFT.copy()


@pytest.mark.parametrize("per_host", [1, 5])
def test_a_host_is_asked_so_many_at_a_time(site: Site, other: Site, image: bytes, per_host: int) -> None:
    """A redirect counts for its target, and each host gets at most this number of connections."""
    here, there = Concurrency(image), Concurrency(image)
    uris = [site.on(f"/{number}.png", here) for number in range(40)]
    for number in range(40):
        other.on(f"/{number}.png", there)
        uris.append(site.on(f"/r{number}.png", reply(302, b"", Location=f"{other.base}/{number}.png")))
    load(uris, per_host, threads=32, window=80)
    assert 0 < here.most <= per_host
    assert 0 < there.most <= per_host
    for one in (site, other):
        assert len({client for _, _, client in one.requests}) <= per_host


def test_a_slow_host_does_not_keep_others_waiting(site: Site, other: Site, image: bytes) -> None:
    """The slow host does not answer before all images of the other host are requested.

    The number of threads is between the slow host's turns and its images.
    """
    asked, all_asked = [0], threading.Event()

    def slow(handler: BaseHTTPRequestHandler) -> None:
        assert all_asked.wait(60)
        reply(body=image)(handler)

    def quick(handler: BaseHTTPRequestHandler) -> None:
        asked[0] += 1
        if asked[0] == 30:
            all_asked.set()
        reply(body=image)(handler)

    uris = [site.on(f"/{number}.png", slow) for number in range(20)]
    uris += [other.on(f"/{number}.png", quick) for number in range(30)]
    load(uris, 1, threads=4, window=64)


def test_redirects_to_a_slow_host_keep_no_thread(image: bytes) -> None:
    """Images of many hosts redirect to one, which does not answer until another host's images have been requested."""
    with contextlib.ExitStack() as stack:
        slow, quick, *sources = [stack.enter_context(serving()) for _ in range(8)]
        asked, all_asked = [0], threading.Event()

        def late(handler: BaseHTTPRequestHandler) -> None:
            assert all_asked.wait(60)
            reply(body=image)(handler)

        def count(handler: BaseHTTPRequestHandler) -> None:
            asked[0] += 1
            if asked[0] == 10:
                all_asked.set()
            reply(body=image)(handler)

        uris = []
        for source in sources:
            for number in range(3):
                slow.on(f"/{number}.png", late)
                moved = reply(302, b"", Location=f"{slow.base}/{number}.png")
                uris.append(source.on(f"/{number}.png", moved))
        uris += [quick.on(f"/{number}.png", count) for number in range(10)]
        load(uris, 1, threads=4, window=64)


def test_bundles_that_are_given_up_leave_the_hosts_to_others(site: Site, image: bytes) -> None:
    """Their images still wait for a turn when the next bundle begins and when the step ends."""
    go_on = threading.Event()

    def late(handler: BaseHTTPRequestHandler) -> None:
        assert go_on.wait(60)
        reply(body=image)(handler)

    refs = [ImageRef(uri, uri, uri) for uri in (site.on(f"/{number}.png", late) for number in range(6))]
    fetching = FetchOptions(allow_http=True, allow_private_hosts=True, http=HttpOptions(per_host=1))
    options = LoadOptions(fetching, DecodeOptions(height=8, width=8), threads=3, window=8)
    steps = [LoadImagesDoFn(options) for _ in range(2)]

    def begin(step: LoadImagesDoFn) -> None:
        step.start_bundle()
        for ref in refs:
            assert not list(step.process(ref, 0, GlobalWindow()))

    for step in steps:
        step.setup()
    begin(steps[0])
    begin(steps[1])
    steps[1].teardown()
    begin(steps[0])
    go_on.set()
    assert sum(isinstance(found.value, LoadedImage) for found in steps[0].finish_bundle()) == len(refs)
    steps[0].teardown()


@pytest.mark.parametrize("status", [429, 503])
@pytest.mark.parametrize("form", ["seconds", "date"])
def test_retry_after_holds_back_all_images_of_a_host(
    site: Site, other: Site, image: bytes, status: int, form: str
) -> None:
    """By the server's clock, no request comes before the time in the first answer."""
    asked, allowed = list[float](), [0.0]

    def busy(handler: BaseHTTPRequestHandler) -> None:
        now = time.time()
        asked.append(now)
        if len(asked) > 1:
            reply(body=image)(handler)
            return
        later = "1" if form == "seconds" else formatdate(now + 2, usegmt=True)
        # A date has no fraction: it is the start of a second, rounded down from the current time.
        allowed[0] = now + 1
        reply(status, b"", **{"Retry-After": later})(handler)

    uris = [site.on(f"/{number}.png", busy) for number in range(12)]
    uris += [other.on("/free.png", reply(body=image))]
    left = load(uris, 1, threads=8, window=64)
    assert len(asked) == 13
    assert min(asked[1:]) >= allowed[0]
    assert left[0] == uris[-1], "the other host's image did not wait"


def test_a_pause_beyond_the_deadline_fails_all_images_of_the_host_unasked(site: Site, other: Site) -> None:
    url = site.on("/a.jpg", reply(429, b"", Retry_After="3600"))
    assert refusal(url).reason is Reason.FETCH_ERROR
    error = refusal(site.on("/b.jpg", reply()))
    assert error.reason is Reason.FETCH_ERROR
    assert "--fetch_deadline" in error.detail
    assert site.count("/b.jpg") == 0
    assert fetch(other.on("/c.jpg", reply()))[0] == BODY
    assert host_gate().held_until(f"127.0.0.1:{site.server.server_port}") > time.monotonic() + 3000
