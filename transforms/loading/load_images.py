"""References → decoded images; fetching and decoding overlap with the next step.

A bounded window of ``load_one`` calls runs in a thread pool: many images are fetched at a time, since fetching is
waiting, and one per core is decoded. Images leave in the order in which they are ready, so that none waits behind a
slow one; the sink sorts the rows.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import apache_beam as beam
from apache_beam.metrics import Metrics
from apache_beam.utils.windowed_value import WindowedValue

from beamlabel.transforms.decoding.decode import decode
from beamlabel.transforms.decoding.picture.pillow_image import without_quotes
from beamlabel.transforms.loading.fetch import (
    Fetched,
    FetchOptions,
    check_allowed,
    fetch,
    http_requests,
    not_empty,
)
from beamlabel.transforms.loading.fetch_member import fetch_member
from beamlabel.transforms.loading.in_flight import Backlog, Bounded, Disk, Finished, Patience
from beamlabel.transforms.loading.known_images import skipped_as_known, with_listed_version, with_stat
from beamlabel.transforms.loading.load_options import LoadOptions
from beamlabel.transforms.loading.loaded_blocks import Batch, OneByOne, Place
from beamlabel.transforms.loading.not_found import data_uri_error, explained, is_data_uri, shown_uri
from beamlabel.transforms.records import (
    Block,
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
from beamlabel.transforms.row_batches import BLOCK_ROWS
from beamlabel.transforms.storage.identity import content_hash, image_id, image_id_of_bytes
from beamlabel.transforms.storage.uris import scheme
from beamlabel.transforms.worker import metrics
from beamlabel.transforms.worker.allocators import bound_malloc_arenas
from beamlabel.transforms.worker.compute_pool import ComputePool, compute_pool
from beamlabel.transforms.worker.daemon_pool import DaemonPool

if TYPE_CHECKING:
    from beamlabel.transforms.loading.http_fetch import HttpFetch

# The least number of images passed to the runner's thread at a time.
_BURST = 32

# Added to the deadlines of fetching and decoding: threads may be running a batch of another bundle, which may take
# twenty minutes.
HANG_SECONDS = 1800.0


class _Encoded(NamedTuple):
    """The result and time of fetching one reference."""

    ref: ImageRef
    fetched: Fetched | Failure
    msec: float


class _Timed(NamedTuple):
    """The result, bytes and times of loading one reference."""

    result: LoadedImage | Failure | Skipped
    fetched_bytes: int
    fetch_msec: float
    decode_msec: float


def load_one(ref: ImageRef, options: LoadOptions) -> LoadedImage | Failure | Skipped:
    """Fetches and decodes one image, unless it is ``known``.

    Every error becomes a ``Failure``; nothing is raised.
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
    except Exception as error:  # our own fault, which must not fail the other images
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
        check_allowed(ref.member.archive, options)
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
    # A decoder's message may quote the file.
    message = without_quotes(str(error)) if stage is Stage.DECODE else str(error)
    return _failure(ref, stage, Reason.INTERNAL_ERROR, f"{type(error).__name__}: {message}", fetched)


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
    """``ImageRef`` → ``LoadedImage`` or ``Failure``; passes failures, unit ends and ``EmbeddedRows`` through.

    A ``Block`` of these becomes ``Block``s. A window of calls is in flight over the elements of a bundle. Other
    elements raise ``TypeError``.

    Args:
      options: of loading.
      batch_size: images in a ``Block``, see ``LoadOptions.in_batch``.
    """

    def __init__(self, options: LoadOptions, batch_size: int = BLOCK_ROWS) -> None:
        self._options = options
        self._batch_size = options.in_batch(batch_size)
        self._fetched = Metrics.counter(metrics.NAMESPACE, metrics.IMAGES_FETCHED)
        self._fetched_bytes = Metrics.counter(metrics.NAMESPACE, metrics.BYTES_FETCHED)
        self._fetch_msec = Metrics.distribution(metrics.NAMESPACE, metrics.FETCH_MSEC)
        self._decode_msec = Metrics.distribution(metrics.NAMESPACE, metrics.DECODE_MSEC)

    def setup(self) -> None:
        bound_malloc_arenas()
        self._fetchers = DaemonPool(self._options.threads, "load-images")
        self._disk = Disk()
        self._bundle: _Bundle | None = None

    def start_bundle(self) -> None:
        self._abandon()
        self._bundle = _Bundle(self._options, compute_pool(self._options.worker_threads), self._fetchers)
        self._in_flight = 0
        self._batches: list[Batch] = []

    def process(
        self,
        element: Opened | Block,
        timestamp: Any = beam.DoFn.TimestampParam,
        window: Any = beam.DoFn.WindowParam,
    ) -> Iterator[WindowedValue]:
        in_block = isinstance(element, Block)
        place: Place = self._batch(timestamp, window) if in_block else OneByOne(timestamp, window)
        elements: Sequence[Opened] = element if isinstance(element, Block) else (element,)
        for each in elements:
            if isinstance(each, ImageRef):
                yield from self._load(each, place)
            elif isinstance(each, (Failure, UnitEnd, EmbeddedRows)):
                yield from place.emit(each)
            else:
                raise TypeError(unknown_element("LoadImages", each, ImageRef, Failure, UnitEnd))

    def finish_bundle(self) -> Iterator[WindowedValue]:
        while self._in_flight:
            yield from self._take()
        for batch in self._batches:
            yield from batch.flush()

    def teardown(self) -> None:
        self._abandon()
        self._fetchers.close()

    def _abandon(self) -> None:
        if self._bundle is not None:
            self._bundle.abandon()
            self._bundle = None

    def _batch(self, timestamp: Any, window: Any) -> Batch:
        """The batch for a block's timestamp and window, usually shared by many blocks."""
        for batch in self._batches:
            if batch.window == window and batch.timestamp == timestamp:
                return batch
        self._batches.append(Batch(timestamp, window, self._batch_size))
        return self._batches[-1]

    def _load(self, ref: ImageRef, place: Place) -> Iterator[WindowedValue]:
        while self._in_flight >= self._options.window:
            yield from self._take()
        self._in_flight += 1
        waits = ref.data is None and (not _is_local(ref) or self._disk.is_slow)
        assert self._bundle is not None
        self._bundle.load(ref, place, waits=waits)

    def _take(self) -> Iterator[WindowedValue]:
        """Waits for loaded images; counts them in this thread, where Beam's counters work."""
        assert self._bundle is not None
        taken = self._bundle.take(self._in_flight)
        self._in_flight -= len(taken)
        fetched = [timed for timed, _ in taken if timed.fetched_bytes]
        for timed in fetched:
            self._fetch_msec.update(round(timed.fetch_msec))
            self._decode_msec.update(round(timed.decode_msec))
            if isinstance(timed.result, LoadedImage) and _is_local(timed.result.ref):
                self._disk.saw(timed.fetch_msec)
        if fetched:
            self._fetched.inc(len(fetched))
            self._fetched_bytes.inc(sum(timed.fetched_bytes for timed in fetched))
        for timed, place in taken:
            yield from place.emit(timed.result)


def _is_local(ref: ImageRef) -> bool:
    return scheme(ref.location) is None


class _Bundle:
    """The images in flight for one bundle; the results of an abandoned bundle are dropped.

    ``take`` raises the exceptions of the threads.
    """

    def __init__(self, options: LoadOptions, compute: ComputePool, fetchers: DaemonPool) -> None:
        self._options, self._compute, self._fetchers = options, compute, fetchers
        self._finished = Finished[tuple[_Timed, Place]]()
        self._backlog = Backlog()
        most = options.most_decoded(compute.threads)
        self._decoding = Bounded(most, self._compute_next)
        self._burst = min(_BURST, most)
        self._patience = Patience(options.longest_load + HANG_SECONDS)

    def load(self, ref: ImageRef, place: Place, *, waits: bool) -> None:
        """Begins to load an image; ``waits``: loading is mostly waiting, so it must not occupy a compute thread."""
        if waits:
            self._fetchers.submit(self._fetch, ref, place)
        else:
            self._decoding.submit(self._load, ref, place)

    def take(self, most: int) -> list[tuple[_Timed, Place]]:
        """Waits for a burst of images, or for the last ones, and takes them.

        Args:
          most: number of images in flight, at least 1.
        """
        self._patience.renew()
        taken = self._finished.take(min(self._burst, most), self._check)
        self._decoding.done(len(taken))
        return taken

    def abandon(self) -> None:
        """Drops the images that have not begun."""
        self._backlog.abandon()

    def _check(self) -> None:
        self._compute.check()
        self._fetchers.check()
        self._patience.check(self._finished.ready())

    def _compute_next(self, task: Callable[..., None], *arguments: Any) -> None:
        self._compute.submit(task, *arguments, failed=self._finished.fail)

    def _load(self, ref: ImageRef, place: Place) -> None:
        """Fetches and decodes an image in this thread of the compute pool."""
        self._finished.put((_decode_timed(_fetch_timed(ref, self._options), self._options), place))

    def _fetch(self, ref: ImageRef, place: Place) -> None:
        """Fetches an image in this waiting thread, and passes it to the compute pool for decoding."""
        try:
            if not self._backlog.wait():
                return
            requests = None if ref.data is not None else http_requests(ref.location, self._options.fetch)
            if requests is None:
                self._encoded(_fetch_timed(ref, self._options), place)
            else:
                self._ask(requests, ref, place)
        except BaseException as error:  # raised again in the bundle's ``take``
            self._finished.fail(error)

    def _ask(self, requests: HttpFetch, ref: ImageRef, place: Place) -> None:
        """Makes an image's web requests one by one; no thread waits while its host admits none."""
        from beamlabel.transforms.loading.http_steps import Result, Steps

        def done(result: Result | BaseException) -> None:
            def get(*_: object) -> Fetched:
                if isinstance(result, BaseException):
                    raise result
                return not_empty(Fetched(*result))

            try:
                encoded = _fetch_timed(ref, self._options, get)
                msec = requests.seconds * 1e3
                self._encoded(encoded._replace(msec=msec), place)
            except BaseException as error:  # as above
                self._finished.fail(error)

        Steps(requests, self._fetchers.submit, done, self._backlog.wait).begin()

    def _encoded(self, encoded: _Encoded, place: Place) -> None:
        size = 0 if isinstance(encoded.fetched, Failure) else len(encoded.fetched.data)
        self._backlog.change(size)
        self._decoding.submit(self._decode, encoded, size, place)

    def _decode(self, encoded: _Encoded, size: int, place: Place) -> None:
        try:
            timed = _decode_timed(encoded, self._options)
        finally:
            self._backlog.change(-size)
        self._finished.put((timed, place))
