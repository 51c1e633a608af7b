"""References → decoded images: fetch and decode overlap with what comes after them.

A bounded window of ``load_one`` calls runs in a thread pool: many fetch at a time, since fetching is waiting,
and as many decode as there are cores. Images leave in the order in which they are ready, so nothing waits
behind a slow one; the sink puts rows in order.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from threading import Condition
from typing import Any

import apache_beam as beam
from apache_beam.metrics import Metrics
from apache_beam.utils.windowed_value import WindowedValue

from beamlabel.transforms.decoding.decode import DecodeOptions, decode
from beamlabel.transforms.loading.fetch import Fetched, FetchOptions, fetch
from beamlabel.transforms.records import (
    Failure,
    ImageError,
    ImageInfo,
    ImageRef,
    Loaded,
    LoadedImage,
    Opened,
    Reason,
    Stage,
)
from beamlabel.transforms.storage.uris import public_uri, scheme
from beamlabel.transforms.worker import metrics
from beamlabel.transforms.worker.allocators import bound_malloc_arenas
from beamlabel.transforms.worker.compute_pool import compute_pool

# Images handed to the runner's thread at a time, at the least.
_BURST = 32
# Encoded images that may wait to be decoded, beside those that are being fetched.
_BACKLOG_BYTES = 64 << 20
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


@dataclass(frozen=True, eq=False)
class _Encoded:
    """What was fetched for one reference, and what it cost."""

    ref: ImageRef
    fetched: Fetched | Failure
    msec: float


@dataclass(frozen=True, eq=False)
class _Timed:
    """What became of one reference, and what it cost."""

    result: LoadedImage | Failure
    fetched_bytes: int
    fetch_msec: float
    decode_msec: float


def load_one(ref: ImageRef, options: LoadOptions) -> LoadedImage | Failure:
    """Fetches and decodes one image; whatever goes wrong becomes a ``Failure``, nothing is raised."""
    return _decode_timed(_fetch_timed(ref, options), options).result


def _fetch_timed(ref: ImageRef, options: LoadOptions) -> _Encoded:
    begin = time.perf_counter()
    fetched: Fetched | Failure
    try:
        fetched = (
            _inline(ref.data, options.fetch) if ref.data is not None else fetch(ref.location, options.fetch)
        )
    except ImageError as error:
        fetched = _failure(ref, error.stage, error.reason, error.detail)
    except Exception as error:  # a fault of ours, yet it must not take the other images down
        fetched = _internal_error(ref, Stage.FETCH, error)
    return _Encoded(ref, fetched, (time.perf_counter() - begin) * 1e3)


def _decode_timed(encoded: _Encoded, options: LoadOptions) -> _Timed:
    ref, fetched = encoded.ref, encoded.fetched
    if isinstance(fetched, Failure):
        return _Timed(fetched, 0, encoded.msec, 0.0)
    begin = time.perf_counter()
    result: LoadedImage | Failure
    try:
        image = decode(fetched.data, options.decode)
        info = ImageInfo(
            image.width,
            image.height,
            image.format,
            len(fetched.data),
            fetched.version,
            color_converted=image.color_converted,
        )
        result = LoadedImage(_without_data(ref), image.pixels, info)
    except ImageError as error:
        result = _failure(ref, error.stage, error.reason, error.detail)
    except Exception as error:  # as above
        result = _internal_error(ref, Stage.DECODE, error)
    return _Timed(result, len(fetched.data), encoded.msec, (time.perf_counter() - begin) * 1e3)


def _inline(data: bytes, options: FetchOptions) -> Fetched:
    if len(data) > options.max_bytes:
        detail = f"{len(data)} bytes, more than --max_bytes {options.max_bytes}"
        raise ImageError(Stage.FETCH, Reason.TOO_MANY_BYTES, detail)
    return Fetched(data, None)


def _without_data(ref: ImageRef) -> ImageRef:
    if ref.data is None:
        return ref
    return ImageRef(ref.uri, ref.ref_id, ref.location, ref.row, ref.unit_id, None, ref.kept)


def _internal_error(ref: ImageRef, stage: Stage, error: Exception) -> Failure:
    return _failure(ref, stage, Reason.INTERNAL_ERROR, f"{type(error).__name__}: {error}")


def _failure(ref: ImageRef, stage: Stage, reason: Reason, detail: str) -> Failure:
    return Failure(public_uri(ref.uri), ref.ref_id, stage, reason, detail, ref.row, ref.unit_id)


class _LoadImagesDoFn(beam.DoFn):
    """Keeps a window of calls in flight over the elements of a bundle."""

    def __init__(self, options: LoadOptions) -> None:
        self._options = options
        self._fetched = Metrics.counter(metrics.NAMESPACE, metrics.IMAGES_FETCHED)
        self._fetched_bytes = Metrics.counter(metrics.NAMESPACE, metrics.BYTES_FETCHED)
        self._fetch_msec = Metrics.distribution(metrics.NAMESPACE, metrics.FETCH_MSEC)
        self._decode_msec = Metrics.distribution(metrics.NAMESPACE, metrics.DECODE_MSEC)

    def setup(self) -> None:
        bound_malloc_arenas()
        threads = self._options.threads
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="load-images")
        self._disk = _Disk()
        self._backlog = _Backlog()

    def start_bundle(self) -> None:
        # A new queue a bundle: what an abandoned bundle left in flight ends in a queue nobody reads.
        self._finished = _Finished()
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
            arguments = (element, self._options, timestamp, window)
            if waits:
                self._pool.submit(_fetch_into, self._finished, self._backlog, *arguments)
            else:
                compute_pool(self._options.worker_threads).submit(_load_into, self._finished, *arguments)
        else:
            yield WindowedValue(element, timestamp, (window,))

    def finish_bundle(self) -> Iterator[WindowedValue]:
        while self._in_flight:
            yield from self._take()

    def teardown(self) -> None:
        self._pool.shutdown(wait=False, cancel_futures=True)

    def _take(self) -> Iterator[WindowedValue]:
        """Waits for images that are ready; counts them here, where Beam's counters are alive."""
        for timed, timestamp, window in self._finished.take(min(_BURST, self._in_flight)):
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


class _Finished:
    """Results from many threads to one, which is woken for a burst of them: a wake-up costs tens of µs."""

    def __init__(self) -> None:
        self._items: deque[tuple[_Timed, Any, Any]] = deque()
        self._wanted = 0
        self._enough = Condition()

    def put(self, item: tuple[_Timed, Any, Any]) -> None:
        # In this order: whoever waits has first set what is wanted, then looked at what is there.
        self._items.append(item)
        if 0 < self._wanted <= len(self._items):
            with self._enough:
                self._enough.notify()

    def take(self, count: int) -> list[tuple[_Timed, Any, Any]]:
        """Waits until there are ``count``, and takes all there are."""
        with self._enough:
            self._wanted = count
            self._enough.wait_for(lambda: len(self._items) >= count)
            self._wanted = 0
        return [self._items.popleft() for _ in range(len(self._items))]


class _Backlog:
    """What was fetched and waits to be decoded: while that is too much, fetching pauses."""

    def __init__(self) -> None:
        self._bytes = 0
        self._less = Condition()

    def wait(self) -> None:
        with self._less:
            self._less.wait_for(lambda: self._bytes <= _BACKLOG_BYTES)

    def change(self, size: int) -> None:
        with self._less:
            self._bytes += size
            if size < 0 and self._bytes <= _BACKLOG_BYTES < self._bytes - size:
                self._less.notify_all()


def _load_into(finished: _Finished, ref: ImageRef, options: LoadOptions, timestamp: Any, window: Any) -> None:
    """Fetches and decodes in this thread, one of the compute pool's."""
    finished.put((_decode_timed(_fetch_timed(ref, options), options), timestamp, window))


def _fetch_into(
    finished: _Finished, backlog: _Backlog, ref: ImageRef, options: LoadOptions, timestamp: Any, window: Any
) -> None:
    """Fetches in this thread, which is there to wait, and leaves the decode to the compute pool."""
    backlog.wait()
    encoded = _fetch_timed(ref, options)
    size = 0 if isinstance(encoded.fetched, Failure) else len(encoded.fetched.data)
    backlog.change(size)

    def decode_into() -> None:
        timed = _decode_timed(encoded, options)
        backlog.change(-size)
        finished.put((timed, timestamp, window))

    compute_pool(options.worker_threads).submit(decode_into)


class LoadImages(beam.PTransform):
    """``ImageRef`` → ``LoadedImage`` or ``Failure``; failures and unit ends are handed through.

    Args:
      options: how images are loaded.
    """

    def __init__(self, options: LoadOptions) -> None:
        super().__init__()
        self._options = options

    def expand(self, refs: beam.PCollection[Opened]) -> beam.PCollection[Loaded]:
        return refs | beam.ParDo(_LoadImagesDoFn(self._options)).with_output_types(Loaded)
