"""References → decoded images: fetch and decode overlap with what comes after them.

A bounded window of ``load_one`` calls runs in a thread pool: many fetch at a time, since fetching is waiting,
and as many decode as there are cores. Images leave in the order in which they are ready, so nothing waits
behind a slow one; the sink puts rows in order.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from queue import SimpleQueue
from threading import Semaphore
from typing import Any

import apache_beam as beam
from apache_beam.metrics import Metrics
from apache_beam.utils.windowed_value import WindowedValue

from transforms import metrics
from transforms.cores import available_cores
from transforms.decode import DecodeOptions, decode
from transforms.fetch import Fetched, FetchOptions, fetch
from transforms.records import (
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
from transforms.uris import public_uri


@dataclass(frozen=True)
class LoadOptions:
    """How images are loaded.

    Attributes:
      fetch: byte cap, deadline, and what may be fetched.
      decode: the size of the result, crop and pixel cap.
      threads: images in flight at a time, in each worker thread of the runner.
      window: images in flight or decoded and not yet taken; bounds the memory of the step, and is what keeps
        the cores busy while the runner's thread is busy elsewhere.
    """

    fetch: FetchOptions
    decode: DecodeOptions
    threads: int = 64
    window: int = 256

    def __post_init__(self) -> None:
        if self.threads < 1:
            raise ValueError(f"threads must be at least 1, not {self.threads}")
        if self.window < self.threads:
            raise ValueError(f"window must be at least threads ({self.threads}), not {self.window}")


@dataclass(frozen=True, eq=False)
class _Timed:
    """What became of one reference, and what it cost."""

    result: LoadedImage | Failure
    fetched_bytes: int
    fetch_msec: float
    decode_msec: float


def load_one(ref: ImageRef, options: LoadOptions) -> LoadedImage | Failure:
    """Fetches and decodes one image; whatever goes wrong becomes a ``Failure``, nothing is raised."""
    return _load_timed(ref, options, nullcontext()).result


def _load_timed(ref: ImageRef, options: LoadOptions, decoding: AbstractContextManager[Any]) -> _Timed:
    """``load_one`` with what it cost; ``decoding`` is entered for the decode, and may make it wait."""
    begin = fetched_at = decode_at = time.perf_counter()
    fetched = Fetched(b"", None)
    result: LoadedImage | Failure
    try:
        fetched = (
            _inline(ref.data, options.fetch) if ref.data is not None else fetch(ref.location, options.fetch)
        )
        fetched_at = decode_at = time.perf_counter()
        with decoding:
            decode_at = time.perf_counter()
            image = decode(fetched.data, options.decode)
        info = ImageInfo(image.width, image.height, image.format, len(fetched.data), fetched.version)
        result = LoadedImage(_without_data(ref), image.pixels, info)
    except ImageError as error:
        result = _failure(ref, error.stage, error.reason, error.detail)
    except Exception as error:  # a fault of ours, yet it must not take the other images down
        stage = Stage.DECODE if fetched.data else Stage.FETCH
        result = _failure(ref, stage, Reason.INTERNAL_ERROR, f"{type(error).__name__}: {error}")
    end = time.perf_counter()
    if not fetched.data:
        fetched_at = decode_at = end
    return _Timed(result, len(fetched.data), (fetched_at - begin) * 1e3, (end - decode_at) * 1e3)


def _inline(data: bytes, options: FetchOptions) -> Fetched:
    if len(data) > options.max_bytes:
        detail = f"{len(data)} bytes, more than --max_bytes {options.max_bytes}"
        raise ImageError(Stage.FETCH, Reason.TOO_MANY_BYTES, detail)
    return Fetched(data, None)


def _without_data(ref: ImageRef) -> ImageRef:
    if ref.data is None:
        return ref
    return ImageRef(ref.uri, ref.ref_id, ref.location, ref.row, ref.unit_id, None, ref.kept)


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
        threads = self._options.threads
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="load-images")
        # More decodes than cores would only take the cores from inference in turns.
        self._decoding = Semaphore(available_cores())

    def start_bundle(self) -> None:
        # A new queue a bundle: what an abandoned bundle left in flight ends in a queue nobody reads.
        self._ready: SimpleQueue[tuple[_Timed, Any, Any]] = SimpleQueue()
        self._in_flight = 0

    def process(
        self,
        element: Opened,
        timestamp: Any = beam.DoFn.TimestampParam,
        window: Any = beam.DoFn.WindowParam,
    ) -> Iterator[WindowedValue]:
        if isinstance(element, ImageRef):
            while self._in_flight >= self._options.window or not self._ready.empty():
                yield self._next()
            self._in_flight += 1
            self._pool.submit(
                _load_into, self._ready, element, self._options, self._decoding, timestamp, window
            )
        else:
            yield WindowedValue(element, timestamp, (window,))

    def finish_bundle(self) -> Iterator[WindowedValue]:
        while self._in_flight:
            yield self._next()

    def teardown(self) -> None:
        self._pool.shutdown(wait=False, cancel_futures=True)

    def _next(self) -> WindowedValue:
        """Waits for the next image that is ready; counts it here, where Beam's counters are alive."""
        timed, timestamp, window = self._ready.get()
        self._in_flight -= 1
        if timed.fetched_bytes:
            self._fetched.inc()
            self._fetched_bytes.inc(timed.fetched_bytes)
            self._fetch_msec.update(round(timed.fetch_msec))
            self._decode_msec.update(round(timed.decode_msec))
        return WindowedValue(timed.result, timestamp, (window,))


def _load_into(
    queue: SimpleQueue, ref: ImageRef, options: LoadOptions, decoding: Semaphore, timestamp: Any, window: Any
) -> None:
    queue.put((_load_timed(ref, options, decoding), timestamp, window))


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
