"""Lists a bucket in the order of names, in several ranges of names in parallel.

A service returns a page at a time, and each page tells where the next one begins: ten million names take ten thousand
sequential requests. But a listing may begin after any name. The first pages are listed one after the other, since most
listings are small. After that, threads list ahead in ranges of names, which are sized by the density of names so far. A
long range is cut again; an empty range costs one request.
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
"""Pages that are listed one after the other first."""
THREADS = 32
AHEAD_PAGES = 128
"""Pages listed ahead of the consumer; twice as many at the most."""

# A range is cut if it has more than this many times the wanted pages.
_TOO_LONG = 1.5
# Pages whose names estimate the density of the next ones.
_SPAN_PAGES = 16


class Page(NamedTuple):
    """A page of a listing: its files, and the token of the next page; None for the last page."""

    files: list[StoredFile]
    token: str | None


FetchPage = Callable[[str | None, str | None], Page]
"""The path after which a listing begins, and the token from the page before → a page. The page may also begin with that
path itself."""


def list_in_ranges(fetch: FetchPage, start: str, *, has_order: bool = True) -> Iterator[StoredFile]:
    """Lists files in order.

    Args:
      fetch: requests a page; called in threads.
      start: prefix of all paths.
      has_order: whether the service lists in the order of names; if not, pages are listed one after the other.

    Raises:
      OSError: The listing repeats a page token, or is unordered; or an error of ``fetch``.
    """
    listing = _Listing(fetch, start)
    try:
        for page in listing.pages(has_order=has_order):
            yield from page
    finally:
        listing.close()


class _NoRangesError(Exception):
    """A server ignores the start of a listing and lists from the beginning."""


class _Spans:
    """The density of names, from the last pages of a range."""

    def __init__(self) -> None:
        self._pages = deque[tuple[str, str, int]](maxlen=_SPAN_PAGES)

    def add(self, files: list[StoredFile]) -> None:
        self._pages.append((files[0].path, files[-1].path, len(files)))

    def __len__(self) -> int:
        return len(self._pages)

    def span(self) -> Span:
        """The span of the pages; raises ``IndexError`` if there are none."""
        return Span(self._pages[0][0], self._pages[-1][1], sum(count for _, _, count in self._pages))


class _Range:
    """Names after ``first`` up to and including ``upto``; None: from the beginning, and to the end.

    Attributes:
      last: the last name listed.
      token: of the page after it.
      tokens: all tokens so far.
      pages: listed, and not taken yet.
      spans: density of its names.
      left: estimated number of pages left.
      number: of the try; answers to earlier tries are dropped.
    """

    def __init__(self, first: str | None, upto: str | None, left: float = 0.0) -> None:
        self.first, self.upto, self.left = first, upto, left
        self.number = 0
        self.begin_anew()

    def begin_anew(self) -> None:
        """Discards all pages listed so far."""
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
        """The name after which the listing continues."""
        return self.last or self.first

    def note(self, page: Page, start: str) -> None:
        """Records the end of a page.

        Raises:
          OSError: The listing repeats a page token.
        """
        if page.token is not None and page.token in self.tokens:
            raise OSError(errno.EIO, "the listing repeats a page token and would never end", start)
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
        # Of the pages taken: the last name, the density of names, and names per page.
        self._last: str | None = None
        self._spans, self._page_names = _Spans(), 1
        self._threads, self._most_threads = 0, THREADS
        self._failure: BaseException | None = None
        self._is_closed = False
        lock = threading.Lock()
        self._has_page, self._has_work = threading.Condition(lock), threading.Condition(lock)

    def close(self) -> None:
        """Ends the threads after their current requests."""
        with self._has_work:
            self._is_closed = True
            self._has_work.notify_all()

    def pages(self, *, has_order: bool) -> Iterator[list[StoredFile]]:
        """The pages in order, the first ones without threads."""
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
        """Waits for a page; None if there are no more pages, or no threads to list them."""
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
        """Starts threads in proportion to the pages listed so far."""
        while self._threads < min(self._most_threads, self._listed // 2 + 1):
            thread = threading.Thread(target=self._work, name=f"list-{self._threads}", daemon=True)
            try:
                thread.start()
            except RuntimeError:  # the system allows no more threads
                self._most_threads = self._threads
                return
            self._threads += 1

    def _work(self) -> None:
        try:
            while self._work_once():
                pass
        except BaseException as error:  # raised again in the consumer
            with self._has_page:
                self._failure = error
                self._has_page.notify()

    def _work_once(self) -> bool:
        """Waits until a page may be requested, and requests it; False if there are no more."""
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
        except BaseException as raised:  # raised again when the consumer reaches these names
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
        """The first range whose next page may be requested, None if there is none now; cuts a long range."""
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
        """The density of a range's names, by its own pages or by the pages taken last."""
        spans = one.spans if len(one.spans) > 1 else self._spans
        found = spans.span()
        return found._replace(pages=found.pages / self._page_names)

    def _cut(self, place: int, pages: int) -> _Range | None:
        """Ends a range so many pages after its current request; the rest becomes a new range."""
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
        """Adds a page to its range."""
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
        """Applies a page to later ranges: ends those without names, and merges those that it reaches."""
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
                later.begin_anew()  # drops the answer to its current request
                later.is_done = True

    def _spare_memory(self) -> None:
        """Discards the last pages if earlier ranges are longer than estimated; they are listed again later."""
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
