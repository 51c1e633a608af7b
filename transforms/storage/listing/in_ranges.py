"""A listing that comes page by page, in the order of names, listed in several ranges of names at the same time.

A service gives a page at a time, and a page tells where the next one begins: ten million names are ten thousand
requests, one after the other. But a listing may begin behind any name. The first pages come one after the other, since
most listings are small; from there on threads list ahead, in ranges that are cut by how close the names lie. A range
that turns out to be long is cut again, and one that turns out to be empty has cost one request.
"""

from __future__ import annotations

import bisect
import errno
import operator
import threading
from collections import deque
from collections.abc import Callable, Iterator
from typing import NamedTuple

from beamlabel.transforms.storage.listing.name_space import NameSpace, Span
from beamlabel.transforms.storage.listing.stored_file import StoredFile

ALONE = 4
"""Pages that come one after the other first."""
THREADS = 32
AHEAD_PAGES = 128
"""Pages that wait for whoever takes the names; twice as many at the most."""

# A range that has so many times the pages that are wanted is cut.
_TOO_LONG = 1.5
# Pages whose names tell how close the next ones lie.
_SPAN_PAGES = 16


class Page(NamedTuple):
    """A page of a listing: its files, and what asks for the next one; None for the last."""

    files: list[StoredFile]
    token: str | None


FetchPage = Callable[[str | None, str | None], Page]
"""The path behind which a listing begins, in the order of paths, and the token of the page before → a page. It may also
begin with that very path."""


def list_in_ranges(fetch: FetchPage, start: str, *, has_order: bool = True) -> Iterator[StoredFile]:
    """The files of a listing, in order.

    Args:
      fetch: asks for a page; called in threads.
      start: what all paths begin with.
      has_order: whether the service lists in the order of names; if not, one page follows the other.

    Raises:
      OSError: the listing goes round in circles, or is in no order; or what ``fetch`` raises.
    """
    listing = _Listing(fetch, start)
    try:
        for page in listing.pages(has_order=has_order):
            yield from page
    finally:
        listing.close()


class _NoRangesError(Exception):
    """A server lists from the beginning, wherever a listing is to begin."""


class _Spans:
    """How close names lie: the last pages of a stretch of them."""

    def __init__(self) -> None:
        self._pages = deque[tuple[str, str, int]](maxlen=_SPAN_PAGES)

    def add(self, files: list[StoredFile]) -> None:
        self._pages.append((files[0].path, files[-1].path, len(files)))

    def __len__(self) -> int:
        return len(self._pages)

    def span(self) -> Span:
        """Raises IndexError if there are none."""
        return Span(self._pages[0][0], self._pages[-1][1], sum(count for _, _, count in self._pages))


class _Range:
    """Names behind ``first`` up to ``upto``, that too; None: from the beginning, and to the end.

    Attributes:
      last: the last name that was listed.
      token: for the page behind it.
      tokens: all of them.
      pages: that were listed, and not taken.
      spans: how close its names lie.
      left: so many pages are left, about.
      number: of the try; what an earlier one has still asked for does not count.
    """

    def __init__(self, first: str | None, upto: str | None, left: float = 0.0) -> None:
        self.first, self.upto, self.left = first, upto, left
        self.number = 0
        self.begin_anew()

    def begin_anew(self) -> None:
        """Forgets what was listed of it."""
        self.pages = deque[list[StoredFile]]()
        self.spans = _Spans()
        self.last: str | None = None
        self.token: str | None = None
        self.tokens = set[str]()
        self.is_asked = self.is_done = False
        self.error: BaseException | None = None
        self.number += 1

    @property
    def is_new(self) -> bool:
        return not self.is_asked and not self.is_done and not self.tokens

    @property
    def place(self) -> str | None:
        """Where it goes on."""
        return self.last or self.first

    def note(self, page: Page, start: str) -> None:
        """Notes where a page ends.

        Raises:
          OSError: the listing goes round in circles.
        """
        if page.token is not None and page.token in self.tokens:
            raise OSError(errno.EIO, "the listing repeats a page token, and would never end", start)
        self.token = page.token
        if page.token is not None:
            self.tokens.add(page.token)
        if page.files:
            self.last = page.files[-1].path
            self.spans.add(page.files)


class _Listing:
    def __init__(self, fetch: FetchPage, start: str) -> None:
        self._fetch, self._start = fetch, start
        self._names = NameSpace(start)
        self._ranges: list[_Range] = []
        self._listed = self._taken = self._waiting = 0
        # Of what was taken: the last name, how close names lay, and how many a page holds.
        self._last: str | None = None
        self._spans, self._page_names = _Spans(), 1
        self._threads, self._most_threads = 0, THREADS
        self._failure: BaseException | None = None
        self._is_closed = False
        lock = threading.Lock()
        self._has_page, self._has_work = threading.Condition(lock), threading.Condition(lock)

    def close(self) -> None:
        """Has the threads end after what they have asked for."""
        with self._has_work:
            self._is_closed = True
            self._has_work.notify_all()

    def pages(self, *, has_order: bool) -> Iterator[list[StoredFile]]:
        """The pages in order; the first ones without a thread."""
        only = _Range(None, None)
        is_sorted = has_order
        for page in self._one_by_one(only):
            is_sorted = is_sorted and _is_sorted(page, self._last)
            yield self._take(page)
            if self._taken >= ALONE and is_sorted and self._last is not None and only.token is not None:
                break
        else:
            return
        again = _Range(None, None)
        again.token, again.tokens = only.token, set(only.tokens)
        self._listed, self._ranges = self._taken, [only]
        try:
            yield from self._pages_of_threads()
        except _NoRangesError:
            self.close()
            for page in self._one_by_one(again):
                yield [file for file in page if self._last is None or file.path > self._last]

    def _one_by_one(self, only: _Range) -> Iterator[list[StoredFile]]:
        while True:
            page = self._fetch(None, only.token)
            only.note(page, self._start)
            self._learn(page.files)
            yield page.files
            if page.token is None:
                return

    def _learn(self, files: list[StoredFile]) -> None:
        self._page_names = max(self._page_names, len(files))
        self._names.learn(files)

    def _take(self, page: list[StoredFile]) -> list[StoredFile]:
        self._taken += 1
        if page:
            self._last = page[-1].path
            self._spans.add(page)
        return page

    def _pages_of_threads(self) -> Iterator[list[StoredFile]]:
        while True:
            with self._has_page:
                self._start_threads()
                page = self._next_page()
                if page is None and not self._ranges:
                    return
            if page is None:
                self._work_once()
            else:
                yield page

    def _next_page(self) -> list[StoredFile] | None:
        """Waits for a page; None if there is none to come, or no thread that brings it."""
        while self._ranges:
            first = self._ranges[0]
            if first.pages:
                self._waiting -= 1
                self._has_work.notify()
                return self._take(first.pages.popleft())
            error = self._failure or first.error
            if error is not None:
                raise error
            if first.is_done:
                del self._ranges[0]
                self._has_work.notify()
            elif not self._threads:
                return None
            else:
                self._has_page.wait()
        return None

    def _start_threads(self) -> None:
        """As many as the listing has turned out to be worth."""
        while self._threads < min(self._most_threads, self._listed // 2 + 1):
            thread = threading.Thread(target=self._work, name=f"list-{self._threads}", daemon=True)
            try:
                thread.start()
            except RuntimeError:  # no more can be started
                self._most_threads = self._threads
                return
            self._threads += 1

    def _work(self) -> None:
        try:
            while self._work_once():
                pass
        except BaseException as error:  # whoever takes the names raises it
            with self._has_page:
                self._failure = error
                self._has_page.notify()

    def _work_once(self) -> bool:
        """Waits until a page may be asked for, and asks for it; False if there is none any more."""
        with self._has_work:
            while not self._is_closed and (one := self._next_range()) is None:
                if not self._ranges:
                    return False
                self._has_work.wait()
            if self._is_closed:
                return False
            assert one is not None
            one.is_asked = True
            number, first, token = one.number, one.first, one.token
        error: BaseException | None = None
        try:
            page = self._fetch(first, token)
        except BaseException as raised:  # whoever comes to these names raises it
            error = raised
        with self._has_page:
            if number == one.number:
                one.is_asked = False
                try:
                    if error is not None:
                        raise error
                    self._keep(one, page)
                except BaseException as raised:
                    one.error, one.is_done = raised, True
                self._start_threads()
            self._has_page.notify()
            self._has_work.notify(2)
        return True

    def _next_range(self) -> _Range | None:
        """The first range whose next page may be asked for; cuts one that is long. None if there is none now."""
        most = min(AHEAD_PAGES, 2 * self._taken)
        pages = max(most // THREADS, 1)
        before = 0
        for place, one in enumerate(self._ranges):
            before += len(one.pages)
            if before >= most:
                return None
            if not one.is_done and not one.is_asked:
                return one
            before += one.is_asked
            if one.is_asked and one.left > _TOO_LONG * pages and before < most:
                rest = self._cut(place, pages)
                if rest is not None:
                    return rest
        return None

    def _span(self, one: _Range) -> Span:
        """How close its names lie: by pages of its own, or by those that were taken last."""
        spans = one.spans if len(one.spans) > 1 else self._spans
        found = spans.span()
        return found._replace(pages=found.pages / self._page_names)

    def _cut(self, place: int, pages: int) -> _Range | None:
        """Has a range end so many pages behind what is asked for; the rest becomes a range of its own."""
        one = self._ranges[place]
        span, at = self._span(one), one.place or self._start
        name = self._names.after(span, at, pages)
        if name <= at or (one.upto is not None and name >= one.upto):
            one.left = 0.0  # until its next page
            return None
        rest = _Range(name, one.upto, self._names.pages_to(span, name, one.upto))
        one.upto, one.left = name, pages
        self._ranges.insert(place + 1, rest)
        return rest

    def _keep(self, one: _Range, page: Page) -> None:
        """Puts a page where it belongs."""
        is_first = not one.tokens
        if is_first and one.first is not None and page.files and page.files[0].path == one.first:
            page = page._replace(files=page.files[1:])
        if not _is_sorted(page.files, one.place):
            if is_first:
                raise _NoRangesError
            raise OSError(errno.EIO, "the listing is not in the order of names", self._start)
        one.note(page, self._start)
        if page.files:
            self._learn(page.files)
        self._absorb(one, page)
        files = page.files
        if one.upto is not None and files and files[-1].path > one.upto:
            files = files[: bisect.bisect_right(files, one.upto, key=operator.attrgetter("path"))]
            one.is_done = True
        one.is_done = one.is_done or page.token is None
        one.left = 0.0
        if not one.is_done and one.place is not None:
            one.left = self._names.pages_to(self._span(one), one.place, one.upto)
        if files:
            one.pages.append(files)
            self._waiting += 1
            self._listed += 1
        self._spare_memory()

    def _absorb(self, one: _Range, page: Page) -> None:
        """Uses what a page tells of later ranges: they hold nothing, or what it holds and nobody has asked for yet."""
        after = self._ranges.index(one) + 1
        ends = page.token is None
        while one.upto is not None and after < len(self._ranges):
            later = self._ranges[after]
            is_reached = ends or (page.files and page.files[-1].path > one.upto)
            if not is_reached or not later.is_new:
                break
            one.upto = later.upto
            del self._ranges[after]
        for later in self._ranges[after:]:
            is_empty = ends or (page.files and later.upto is not None and later.upto < page.files[0].path)
            if is_empty and not later.pages and not later.is_done:
                later.begin_anew()  # no matter what comes of what it has asked for
                later.is_done = True

    def _spare_memory(self) -> None:
        """Forgets the last pages if ranges before them turned out to be long; they are listed again."""
        while self._waiting > 2 * AHEAD_PAGES:
            last = next((one for one in reversed(self._ranges[1:]) if one.pages), None)
            if last is None:
                return
            self._waiting -= len(last.pages)
            last.begin_anew()


def _is_sorted(files: list[StoredFile], last: str | None) -> bool:
    paths = [file.path for file in files]
    if paths and last is not None and paths[0] <= last:
        return False
    return all(map(operator.lt, paths, paths[1:]))
