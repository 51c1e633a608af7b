"""References → decoded images: fetch and decode overlap with what comes after them.

A bounded window of ``load_one`` calls runs in a thread pool: many fetch at a time, since fetching is waiting,
and as many decode as there are cores. Images leave in the order in which they are ready, so nothing waits
behind a slow one; the sink puts rows in order.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import apache_beam as beam
from apache_beam.metrics import Metrics
from apache_beam.utils.windowed_value import WindowedValue

from beamlabel.transforms.decoding.decode import DecodeOptions, decode
from beamlabel.transforms.loading.fetch import Fetched, FetchOptions, fetch, http_requests, not_empty
from beamlabel.transforms.loading.fetch_member import fetch_member
from beamlabel.transforms.loading.in_flight import Backlog, Finished
from beamlabel.transforms.loading.known_images import skipped_as_known, with_listed_version, with_stat
from beamlabel.transforms.loading.not_found import data_uri_error, explained, is_data_uri, shown_uri
from beamlabel.transforms.records import (
    EmbeddedRows,
    Failure,
    ImageError,
    ImageInfo,
    ImageRef,
    LoadedImage,
    Opened,
    Reason,
    Skipped,
    Stage,
    UnitEnd,
    unknown_element,
)
from beamlabel.transforms.storage.identity import content_hash, image_id, image_id_of_bytes
from beamlabel.transforms.storage.uris import scheme
from beamlabel.transforms.worker import metrics
from beamlabel.transforms.worker.allocators import bound_malloc_arenas
from beamlabel.transforms.worker.compute_pool import ComputePool, compute_pool
from beamlabel.transforms.worker.daemon_pool import DaemonPool

if TYPE_CHECKING:
    from beamlabel.transforms.loading.http_fetch import HttpFetch

# Decoded images that wait for inference: 20 MB at 160 × 160 pixels.
_WINDOW = 256
# Images handed to the runner's thread at a time, at the least.
_BURST = 32
# A local disk reads an image in less; 64 reads are remembered, about.
_SLOW_READ_MSEC = 2.0
_READS_REMEMBERED = 64
# After so many reads by the fetching threads, whose times hold their waits for Python's lock, a slow disk gets
# another chance: else one busy moment would cost the rest of the run.
_SLOW_READS = 4096


@dataclass(frozen=True)
class LoadOptions:
    """How images are loaded.

    Attributes:
      fetch: byte cap, deadline, and what may be fetched.
      decode: the size of the result, crop and pixel cap.
      threads: images in flight at a time, in each worker thread of the runner.
      window: images in flight or decoded and not yet taken; bounds the memory of the step, and is what keeps
        the cores busy while the runner's thread is busy elsewhere.
      worker_threads: that compute in a worker process; None: as many as the cores that it may use.
    """

    fetch: FetchOptions
    decode: DecodeOptions
    threads: int = 64
    window: int = 256
    worker_threads: int | None = None

    def __post_init__(self) -> None:
        if self.threads < 1:
            raise ValueError(f"threads must be at least 1, not {self.threads}")
        if self.window < self.threads:
            raise ValueError(f"window must be at least threads ({self.threads}), not {self.window}")


def window(threads: int) -> int:
    """The window that suits so many threads, see ``LoadOptions``."""
    return max(_WINDOW, 2 * threads)


@dataclass(frozen=True, eq=False)
class _Encoded:
    """What was fetched for one reference, and what it cost."""

    ref: ImageRef
    fetched: Fetched | Failure
    msec: float


@dataclass(frozen=True, eq=False)
class _Timed:
    """What became of one reference, and what it cost."""

    result: LoadedImage | Failure | Skipped
    fetched_bytes: int
    fetch_msec: float
    decode_msec: float


def load_one(ref: ImageRef, options: LoadOptions) -> LoadedImage | Failure | Skipped:
    """Fetches and decodes one image, unless it is ``known``.

    Whatever goes wrong becomes a ``Failure``, nothing is raised.
    """
    return _decode_timed(_fetch_timed(ref, options), options).result


_Get = Callable[[str, FetchOptions], Fetched]


def _fetch_timed(ref: ImageRef, options: LoadOptions, get: _Get | None = None) -> _Encoded:
    begin = time.perf_counter()
    fetched: Fetched | Failure
    try:
        ref = _identified(ref)
        data = ref.data
        fetched = _fetched(ref, options.fetch, get) if data is None else _inline(ref, options.fetch)
        fetched = with_listed_version(fetched, ref)
    except ImageError as error:
        fetched = with_stat(_failure(ref, error.stage, error.reason, error.detail), ref, options.fetch)
    except Exception as error:  # a fault of ours, yet it must not take the other images down
        fetched = _internal_error(ref, Stage.FETCH, error)
    return _Encoded(ref, fetched, (time.perf_counter() - begin) * 1e3)


def _decode_timed(encoded: _Encoded, options: LoadOptions) -> _Timed:
    ref, fetched = encoded.ref, encoded.fetched
    if isinstance(fetched, Failure):
        return _Timed(fetched, 0, encoded.msec, 0.0)
    begin = time.perf_counter()
    result: LoadedImage | Failure | Skipped
    if (skipped := skipped_as_known(ref, fetched)) is not None:
        return _Timed(skipped, len(fetched.data), encoded.msec, 0.0)
    try:
        image = decode(fetched.data, options.decode)
        info = ImageInfo(
            image.width,
            image.height,
            image.format,
            len(fetched.data),
            fetched.version,
            content_hash(fetched.data),
            color_converted=image.color_converted,
        )
        result = LoadedImage(_without_data(ref), image.pixels, info)
    except ImageError as error:
        result = _failure(ref, error.stage, error.reason, error.detail, fetched)
    except Exception as error:  # as above
        result = _internal_error(ref, Stage.DECODE, error, fetched)
    return _Timed(result, len(fetched.data), encoded.msec, (time.perf_counter() - begin) * 1e3)


def _fetched(ref: ImageRef, options: FetchOptions, get: _Get | None) -> Fetched:
    if ref.member is not None:
        return fetch_member(ref.member, options)
    if is_data_uri(ref.uri):
        raise data_uri_error()
    try:
        return (get or fetch)(ref.location, options)
    except ImageError as error:
        raise explained(error, ref) from error


def _inline(ref: ImageRef, options: FetchOptions) -> Fetched:
    data = ref.data
    assert data is not None
    if len(data) > options.max_bytes:
        detail = f"{len(data)} bytes, more than --max_bytes {options.max_bytes}"
        raise ImageError(Stage.FETCH, Reason.TOO_MANY_BYTES, detail)
    return Fetched(data, None if ref.listing_stat is None else ref.listing_stat[1])


def _identified(ref: ImageRef) -> ImageRef:
    if ref.image_id is not None:
        return ref
    identity = image_id(ref.location) if ref.data is None else image_id_of_bytes(ref.data)
    return dataclasses.replace(ref, image_id=identity)


def _without_data(ref: ImageRef) -> ImageRef:
    return ref if ref.data is None else dataclasses.replace(ref, data=None)


def _internal_error(ref: ImageRef, stage: Stage, error: Exception, fetched: Fetched | None = None) -> Failure:
    return _failure(ref, stage, Reason.INTERNAL_ERROR, f"{type(error).__name__}: {error}", fetched)


def _failure(
    ref: ImageRef, stage: Stage, reason: Reason, detail: str, fetched: Fetched | None = None
) -> Failure:
    failure = Failure(
        shown_uri(ref.uri),
        ref.ref_id,
        stage,
        reason,
        detail,
        ref.row,
        ref.unit_id,
        ref.image_id,
        origin=ref.origin,
    )
    if fetched is None:
        return failure
    return dataclasses.replace(
        failure,
        source_bytes=len(fetched.data),
        source_version=fetched.version,
        content_hash=content_hash(fetched.data),
    )


class LoadImagesDoFn(beam.DoFn):
    """``ImageRef`` → ``LoadedImage`` or ``Failure``; failures, unit ends and ``EmbeddedRows`` are handed through.

    Keeps a window of calls in flight over the elements of a bundle. Anything else is a ``TypeError``.

    Args:
      options: how images are loaded.
    """

    def __init__(self, options: LoadOptions) -> None:
        self._options = options
        self._fetched = Metrics.counter(metrics.NAMESPACE, metrics.IMAGES_FETCHED)
        self._fetched_bytes = Metrics.counter(metrics.NAMESPACE, metrics.BYTES_FETCHED)
        self._fetch_msec = Metrics.distribution(metrics.NAMESPACE, metrics.FETCH_MSEC)
        self._decode_msec = Metrics.distribution(metrics.NAMESPACE, metrics.DECODE_MSEC)

    def setup(self) -> None:
        bound_malloc_arenas()
        self._fetchers = DaemonPool(self._options.threads, "load-images")
        self._disk = _Disk()
        self._bundle: _Bundle | None = None

    def start_bundle(self) -> None:
        self._abandon()
        self._bundle = _Bundle(self._options, compute_pool(self._options.worker_threads), self._fetchers)
        self._in_flight = 0

    def process(
        self,
        element: Opened,
        timestamp: Any = beam.DoFn.TimestampParam,
        window: Any = beam.DoFn.WindowParam,
    ) -> Iterator[WindowedValue]:
        if isinstance(element, ImageRef):
            while self._in_flight >= self._options.window:
                yield from self._take()
            self._in_flight += 1
            waits = element.data is None and (not _is_local(element) or self._disk.is_slow)
            assert self._bundle is not None
            self._bundle.load(element, timestamp, window, waits=waits)
        elif isinstance(element, (Failure, UnitEnd, EmbeddedRows)):
            yield WindowedValue(element, timestamp, (window,))
        else:
            raise TypeError(unknown_element("LoadImages", element, ImageRef, Failure, UnitEnd))

    def finish_bundle(self) -> Iterator[WindowedValue]:
        while self._in_flight:
            yield from self._take()

    def teardown(self) -> None:
        self._abandon()
        self._fetchers.close()

    def _abandon(self) -> None:
        if self._bundle is not None:
            self._bundle.abandon()
            self._bundle = None

    def _take(self) -> Iterator[WindowedValue]:
        """Waits for images that are ready; counts them here, where Beam's counters are alive."""
        assert self._bundle is not None
        for timed, timestamp, window in self._bundle.take(min(_BURST, self._in_flight)):
            self._in_flight -= 1
            if timed.fetched_bytes:
                self._fetched.inc()
                self._fetched_bytes.inc(timed.fetched_bytes)
                self._fetch_msec.update(round(timed.fetch_msec))
                self._decode_msec.update(round(timed.decode_msec))
                self._disk.saw(timed)
            yield WindowedValue(timed.result, timestamp, (window,))


class _Disk:
    """Whether reading local files is waiting: then it is done by the fetching threads, as for a network.

    A file in the page cache or on a local disk costs less to read than to hand to another thread.
    """

    def __init__(self) -> None:
        self._msec = 0.0
        self._slow_reads = 0

    @property
    def is_slow(self) -> bool:
        return self._msec > _SLOW_READ_MSEC

    def saw(self, timed: _Timed) -> None:
        if isinstance(timed.result, LoadedImage) and _is_local(timed.result.ref):
            self._msec += (timed.fetch_msec - self._msec) / _READS_REMEMBERED
            self._slow_reads = self._slow_reads + 1 if self.is_slow else 0
            if self._slow_reads == _SLOW_READS:
                self._msec, self._slow_reads = 0.0, 0


def _is_local(ref: ImageRef) -> bool:
    return scheme(ref.location) is None


class _Bundle:
    """What is in flight for one bundle; what an abandoned one leaves ends in a queue that nobody reads.

    Whatever a thread raises, ``take`` raises.
    """

    def __init__(self, options: LoadOptions, compute: ComputePool, fetchers: DaemonPool) -> None:
        self._options, self._compute, self._fetchers = options, compute, fetchers
        self._finished = Finished[tuple[_Timed, Any, Any]]()
        self._backlog = Backlog()

    def load(self, ref: ImageRef, timestamp: Any, window: Any, *, waits: bool) -> None:
        """Begins to load an image; ``waits``: mostly by waiting, so not in a thread that is there to compute."""
        if waits:
            self._fetchers.submit(self._fetch, ref, timestamp, window)
        else:
            self._compute.submit(self._load, ref, timestamp, window, failed=self._finished.fail)

    def take(self, count: int) -> list[tuple[_Timed, Any, Any]]:
        """Waits for so many images, and takes all that are ready."""
        return self._finished.take(count, self._check)

    def abandon(self) -> None:
        """Nobody takes anything any more: what has not begun need not."""
        self._backlog.abandon()

    def _check(self) -> None:
        self._compute.check()
        self._fetchers.check()

    def _load(self, ref: ImageRef, timestamp: Any, window: Any) -> None:
        """Fetches and decodes in this thread, one of the compute pool's."""
        self._finished.put(
            (_decode_timed(_fetch_timed(ref, self._options), self._options), timestamp, window)
        )

    def _fetch(self, ref: ImageRef, timestamp: Any, window: Any) -> None:
        """Fetches in this thread, which is there to wait, and leaves the decode to the compute pool."""
        try:
            if not self._backlog.wait():
                return
            requests = None if ref.data is not None else http_requests(ref.location, self._options.fetch)
            if requests is None:
                self._encoded(_fetch_timed(ref, self._options), timestamp, window)
            else:
                self._ask(requests, ref, timestamp, window)
        except BaseException as error:  # the bundle's, which waits for the image
            self._finished.fail(error)

    def _ask(self, requests: HttpFetch, ref: ImageRef, timestamp: Any, window: Any) -> None:
        """Takes an image's requests to the web, one by one: while its host is not to be asked no thread waits."""
        from beamlabel.transforms.loading.http_steps import Result, Steps

        def done(result: Result | BaseException) -> None:
            def get(*_: object) -> Fetched:
                if isinstance(result, BaseException):
                    raise result
                return not_empty(Fetched(*result))

            try:
                encoded = _fetch_timed(ref, self._options, get)
                msec = requests.seconds * 1e3
                self._encoded(dataclasses.replace(encoded, msec=msec), timestamp, window)
            except BaseException as error:  # as above
                self._finished.fail(error)

        Steps(requests, self._fetchers.submit, done, self._backlog.wait).begin()

    def _encoded(self, encoded: _Encoded, timestamp: Any, window: Any) -> None:
        size = 0 if isinstance(encoded.fetched, Failure) else len(encoded.fetched.data)
        self._backlog.change(size)
        self._compute.submit(self._decode, encoded, size, timestamp, window, failed=self._finished.fail)

    def _decode(self, encoded: _Encoded, size: int, timestamp: Any, window: Any) -> None:
        try:
            timed = _decode_timed(encoded, self._options)
        finally:
            self._backlog.change(-size)
        self._finished.put((timed, timestamp, window))
