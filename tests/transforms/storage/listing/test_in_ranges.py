"""Listings in ranges: every name once and in order, no extra request for small listings, bounded memory."""

import bisect
import hashlib
import random
import threading
from collections.abc import Iterator

import pytest

from beamlabel.transforms.storage.listing import in_ranges
from beamlabel.transforms.storage.listing.in_ranges import Page, list_in_ranges
from beamlabel.transforms.storage.listing.stored_file import StoredFile

START = "gs://bucket/photos/"
PAGE = 10


class Service:
    """Lists names like the services, and counts requests."""

    def __init__(self, names: list[str], *, knows_start: bool = True) -> None:
        self.paths = sorted(START + name for name in set(names))
        self.knows_start = knows_start
        self.requests = self.names_sent = 0
        self.lock = threading.Lock()

    def __call__(self, after: str | None, token: str | None) -> Page:
        at = int(token) if token else 0
        if not token and after is not None and self.knows_start:
            at = bisect.bisect_left(self.paths, after)
        end = at + PAGE
        files = [StoredFile(path, 1, "1") for path in self.paths[at:end]]
        with self.lock:
            self.requests += 1
            self.names_sent += len(files)
        return Page(files, str(end) if end < len(self.paths) else None)

    @property
    def pages(self) -> int:
        return -(-len(self.paths) // PAGE) or 1

    def listed(self) -> list[str]:
        return [file.path for file in list_in_ranges(self, START)]


def _hashes(count: int) -> Iterator[str]:
    return (hashlib.md5(str(number).encode()).hexdigest() for number in range(count))


def _words(count: int) -> list[str]:
    chosen = random.Random(1)
    words = ["".join(chosen.choices("abcdefghijklmnopqrstuvwxyz", k=chosen.randint(3, 9))) for _ in range(40)]
    return [f"{chosen.choice(words)}/{chosen.randrange(10**9)}.png" for _ in range(count)]


LAYOUTS = {
    "counters": [f"{number:08}.jpg" for number in range(9_000)],
    "counters without zeros": [f"img{number}.jpg" for number in range(9_000)],
    "hashes": [f"{name}.jpg" for name in _hashes(9_000)],
    "directories of hashes": [f"{name[:2]}/{name[2:4]}/{name}.jpg" for name in _hashes(9_000)],
    "days": [f"2024/{1 + n // 750:02}/{1 + n // 30 % 25:02}/IMG_{n % 30:05}.jpg" for n in range(9_000)],
    "words": _words(9_000),
    "one dense directory": [f"a{n}/x.jpg" for n in range(90)] + [f"zz/deep/{n:09}.jpg" for n in range(9_000)],
    "classes": [f"n{1440764 + 7919 * (n % 100):08}/n{n}.JPEG" for n in range(9_000)],
    "many alphabets": [f"{'éß日😀~'[n % 5]}/{n % 7}\u00ad{n}\U0010ffff.jpg" for n in range(9_000)],
    "long": [f"{'long directory ' * 48}{n:06}/{'b' * 300}{n}.jpg" for n in range(2_000)],
    "prefixes of each other": ["a" * n for n in range(1, 900)],
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_name_comes_once_and_in_order(layout: str) -> None:
    service = Service(LAYOUTS[layout])
    assert service.listed() == service.paths


@pytest.mark.parametrize(
    "layout", ["counters", "counters without zeros", "hashes", "directories of hashes", "days", "classes"]
)
def test_little_more_is_asked_for_than_there_is(layout: str) -> None:
    service = Service(LAYOUTS[layout])
    service.listed()
    assert service.requests < 1.5 * service.pages


@pytest.mark.parametrize("names", [0, 1, PAGE, PAGE + 1, 4 * PAGE])
def test_a_small_listing_is_as_many_requests_as_pages(names: int) -> None:
    service = Service([f"{number:08}" for number in range(names)])
    assert service.listed() == service.paths
    assert service.requests == service.pages


def test_nothing_is_asked_for_that_nobody_takes() -> None:
    service = Service(LAYOUTS["hashes"])
    listing = list_in_ranges(service, START)
    assert service.requests == 0
    for number in range(in_ranges.ALONE):
        for _ in range(PAGE):
            next(listing)
        assert service.requests == number + 1
    listing.close()


def test_many_pages_are_asked_for_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(in_ranges, "AHEAD_PAGES", 10_000)  # otherwise only the first range might remain
    service = Service(LAYOUTS["hashes"])
    enough = threading.Event()
    under_way = set[int]()

    def meet(after: str | None, token: str | None) -> Page:
        under_way.add(threading.get_ident())
        if len(under_way) >= 8:
            enough.set()
        # No thread continues alone: with fewer busy threads, the listing fails.
        if service.requests > 300 and not enough.wait(timeout=60):
            raise AssertionError("one page after the other")
        page = service(after, token)
        under_way.discard(threading.get_ident())
        return page

    assert [file.path for file in list_in_ranges(meet, START)] == service.paths


@pytest.mark.parametrize("layout", ["hashes", "one dense directory", "words"])
def test_few_pages_wait_for_a_reader_that_is_slow(layout: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(in_ranges, "AHEAD_PAGES", 16)
    monkeypatch.setattr(in_ranges, "THREADS", 8)
    service = Service(LAYOUTS[layout])
    taken = most = 0
    lock = threading.Lock()
    listing = in_ranges._Listing(service, START)

    def fetch(after: str | None, token: str | None) -> Page:
        nonlocal most
        with lock:
            most = max(most, listing._waiting)
        return service(after, token)

    listing._fetch = fetch
    for page in listing.pages(has_order=True):
        taken += len(page)
    listing.close()
    assert taken == len(service.paths)
    assert most <= 2 * 16


@pytest.mark.parametrize("knows_start", [True, False], ids=["ranges", "no ranges"])
def test_a_server_that_knows_no_beginning_is_listed_nevertheless(knows_start: bool) -> None:
    service = Service(LAYOUTS["counters"][:2_000], knows_start=knows_start)
    assert service.listed() == service.paths


def test_a_service_without_an_order_is_listed_page_by_page() -> None:
    paths = [f"{START}{name}" for name in _hashes(200)]
    for has_order in (True, False):
        requests = []

        def fetch(after: str | None, token: str | None, requests: list = requests) -> Page:
            assert after is None
            requests.append(token)
            end = int(token or 0) + PAGE
            files = [StoredFile(path, 1, "1") for path in paths[end - PAGE : end]]
            return Page(files, str(end) if end < len(paths) else None)

        assert [file.path for file in list_in_ranges(fetch, START, has_order=has_order)] == paths
        assert len(requests) == 20


@pytest.mark.parametrize("at", [1, 3, 200], ids=["at once", "soon", "in a range"])
def test_a_page_token_that_comes_again_ends_the_listing(at: int) -> None:
    service = Service(LAYOUTS["counters"])

    def fetch(after: str | None, token: str | None) -> Page:
        page = service(after, token)
        start = int(page.token or 0) // PAGE
        return page if start < at else page._replace(token=token or page.token)

    try:
        found = [file.path for file in list_in_ranges(fetch, START)]
    except OSError as error:
        assert "repeats a page token" in str(error)
    else:
        # Ranges of a page each need no token.
        assert at == 200 and found == service.paths


def test_empty_pages_that_go_round_in_circles_end_the_listing() -> None:
    with pytest.raises(OSError, match="repeats a page token"):
        list(list_in_ranges(lambda _, token: Page([], "b" if token == "a" else "a"), START))


def test_empty_pages_are_no_end() -> None:
    service = Service(LAYOUTS["hashes"][:1_000])

    def fetch(after: str | None, token: str | None) -> Page:
        if token is not None and not token.startswith("empty"):
            return Page([], "empty" + token)
        return service(after, token and token.removeprefix("empty"))

    assert [file.path for file in list_in_ranges(fetch, START)] == service.paths


def test_an_error_comes_when_its_names_are_reached() -> None:
    service = Service(LAYOUTS["counters"])
    bad = service.paths[5_000]

    def fetch(after: str | None, token: str | None) -> Page:
        page = service(after, token)
        if any(file.path == bad for file in page.files):
            raise OSError("by the test")
        return page

    found = []
    with pytest.raises(OSError, match="by the test"):
        found.extend(file.path for file in list_in_ranges(fetch, START))
    got = []
    try:
        for file in list_in_ranges(fetch, START):
            got.append(file.path)
    except OSError:
        pass
    assert got == service.paths[: len(got)]
    assert len(got) > 4_000


def test_no_thread_can_be_started(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(self: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    service = Service(LAYOUTS["hashes"][:2_000])
    monkeypatch.setattr(threading.Thread, "start", refuse)
    assert service.listed() == service.paths
