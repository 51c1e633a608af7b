"""Loading in a pipeline: overlap, limits, and images that must not wait."""

import itertools
import threading
import time

import apache_beam as beam
import pytest
from apache_beam.runners.portability.fn_api_runner import FnApiRunner
from apache_beam.testing.util import assert_that, equal_to
from apache_beam.transforms.window import GlobalWindow

from beamlabel.transforms.decoding.decode import DecodeOptions
from beamlabel.transforms.load_images import LoadImages
from beamlabel.transforms.loading import in_flight, load_images
from beamlabel.transforms.loading.fetch import FetchOptions
from beamlabel.transforms.loading.in_flight import Backlog, Bounded, Disk, Finished
from beamlabel.transforms.loading.load_images import LoadImagesDoFn
from beamlabel.transforms.loading.load_options import LoadOptions
from beamlabel.transforms.loading.web.http_options import HttpOptions
from beamlabel.transforms.records import ImageRef, LoadedImage
from support.http_site import serving
from support.jobs import photos

FETCH = FetchOptions(allow_http=True, allow_private_hosts=True, http=HttpOptions(per_host=64))


LEFT = []


def note(image):
    """Not nested in ``load``, since a function pickled by value gets its own list."""
    assert isinstance(image, LoadedImage), image
    LEFT.append(image.ref.uri)
    return image.ref.uri


def load(uris, **options):
    """Loads the images in one bundle; returns their URIs in the order in which they left."""
    LEFT.clear()
    refs = [ImageRef(uri, uri, uri) for uri in uris]
    with beam.Pipeline(runner=FnApiRunner()) as p:
        loaded = p | beam.Create([refs], reshuffle=False) | beam.FlatMap(lambda some: some)
        loaded |= LoadImages.with_options(LoadOptions(FETCH, DecodeOptions(height=32, width=32), **options))
        # Also: all of them arrive.
        assert_that(loaded | beam.Map(note), equal_to(list(uris)))
    return LEFT.copy()


class Busy:
    """Counts the threads that are inside at the same time."""

    def __init__(self):
        self.now = self.most = 0
        self._lock = threading.Lock()

    def __enter__(self):
        with self._lock:
            self.now += 1
            self.most = max(self.most, self.now)

    def __exit__(self, *_):
        with self._lock:
            self.now -= 1


@pytest.fixture
def slow_site(tmp_path):
    """An HTTP server that takes 50 ms per image and counts concurrent requests."""
    body = photos(tmp_path, 1)[0].read_bytes()
    busy = Busy()

    def answer(handler):
        with busy:
            time.sleep(0.05)
        handler.send_response(200)
        handler.send_header("Content-Length", str(len(body)))
        handler.end_headers()
        handler.wfile.write(body)

    with serving() as site:
        yield site, answer, busy


def test_remote_images_are_fetched_in_parallel_up_to_the_limit(slow_site):
    site, answer, busy = slow_site
    uris = [site.on(f"/{number}.png", answer) for number in range(300)]
    load(uris, threads=24, window=100)
    assert 12 < busy.most <= 24


def test_nobody_waits_behind_a_slow_image(slow_site):
    """The slow image comes after the server has answered a hundred others."""
    site, answer, _ = slow_site
    answered, many = itertools.count(1), threading.Event()

    def late(handler):
        assert many.wait(60)
        answer(handler)

    def count(handler):
        answer(handler)
        if next(answered) == 100:
            many.set()

    uris = [site.on("/late.png", late), *(site.on(f"/{number}.png", count) for number in range(120))]
    left = load(uris, threads=8, window=40)
    assert left.index(uris[0]) > 60


def test_local_files_are_read_by_the_thread_that_decodes_them(tmp_path, monkeypatch):
    names = set()
    original = load_images.fetch

    def fetch(*arguments):
        names.add(threading.current_thread().name.partition("-")[0])
        return original(*arguments)

    monkeypatch.setattr(load_images, "fetch", fetch)
    load([str(path) for path in photos(tmp_path, 40)], window=64)
    assert names == {"compute"}


def test_slow_disks_are_read_by_the_fetching_threads(tmp_path, monkeypatch):
    busy, original = Busy(), load_images.fetch

    def fetch(*arguments):
        with busy:
            time.sleep(0.02)
            return original(*arguments)

    monkeypatch.setattr(load_images, "fetch", fetch)
    load([str(path) for path in photos(tmp_path, 300)], threads=16, window=64)
    assert busy.most > 8


def test_what_a_slow_disk_is():
    disk = Disk()

    def read(msec, times):
        for _ in range(times):
            disk.saw(msec)

    read(1.0, 1000)
    assert not disk.is_slow
    read(5.0, 100)
    assert disk.is_slow
    read(0.1, 1000)
    assert not disk.is_slow


def test_images_of_a_network_say_nothing_of_the_disk(slow_site):
    site, answer, _ = slow_site
    step = LoadImagesDoFn(LoadOptions(FETCH, DecodeOptions(height=32, width=32)))
    step.setup()
    step.start_bundle()
    uris = [site.on(f"/{number}.png", answer) for number in range(40)]
    for uri in uris:
        assert not list(step.process(ImageRef(uri, uri, uri), 0, GlobalWindow()))
    assert len(list(step.finish_bundle())) == 40
    assert not step._disk.is_slow
    step.teardown()


def test_only_so_many_tasks_are_begun_and_not_done():
    begun = []
    tasks = Bounded(3, begun.append)
    for number in range(5):
        tasks.submit(number)
    assert begun == [0, 1, 2]
    tasks.done(1)
    assert begun == [0, 1, 2, 3]
    tasks.done(3)
    assert begun == [0, 1, 2, 3, 4]
    tasks.submit(5)
    tasks.submit(6)
    tasks.submit(7)
    assert begun == [0, 1, 2, 3, 4, 5, 6]


def test_fetching_pauses_while_too_much_waits_to_be_decoded():
    backlog = Backlog()
    backlog.change(in_flight.BACKLOG_BYTES + 1)
    waiting = threading.Thread(target=backlog.wait)
    waiting.start()
    waiting.join(0.05)
    assert waiting.is_alive()
    backlog.change(-1)
    waiting.join(60)
    assert not waiting.is_alive()


def test_a_small_backlog_is_enough(slow_site, monkeypatch):
    site, answer, _ = slow_site
    monkeypatch.setattr(in_flight, "BACKLOG_BYTES", 1)
    load([site.on(f"/{number}.png", answer) for number in range(60)], threads=8, window=40)


def test_a_taker_is_woken_when_there_is_enough():
    finished = Finished()
    threads = [
        threading.Thread(target=lambda: [finished.put(number) for number in range(1000)]) for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    taken = []
    while len(taken) < 4000:
        some = finished.take(min(32, 4000 - len(taken)), lambda: None)
        assert len(some) >= min(32, 4000 - len(taken))
        taken += some
    assert sorted(taken) == sorted(4 * list(range(1000)))


@pytest.mark.parametrize(
    ("size", "threads", "decoded", "in_batch"),
    [(160, 2, 256, 128), (224, 2, 256, 128), (600, 2, 62, 32), (600, 32, 256, 32), (8000, 2, 16, 1)],
)
def test_pixels_are_weighed_in_bytes(size, threads, decoded, in_batch):
    options = LoadOptions(FETCH, DecodeOptions(height=size, width=size))
    assert options.most_decoded(threads) == decoded
    assert options.in_batch(128) == in_batch


def test_the_number_of_decoded_images_that_wait_is_bounded(tmp_path, monkeypatch):
    """No image is consumed, so only a limited number of those in flight is decoded."""
    monkeypatch.setattr(LoadOptions, "most_decoded", lambda self, compute_threads: 8)
    decoded, enough = [], threading.Event()
    original = load_images._decode_timed

    def count(*arguments):
        decoded.append(arguments)
        if len(decoded) == 8:
            enough.set()
        return original(*arguments)

    monkeypatch.setattr(load_images, "_decode_timed", count)
    step = LoadImagesDoFn(LoadOptions(FETCH, DecodeOptions(height=8, width=8), window=64))
    step.setup()
    step.start_bundle()
    for path in photos(tmp_path, 40):
        assert not list(step.process(ImageRef(str(path), "a", str(path)), 0, GlobalWindow()))
    assert enough.wait(60)
    assert step._bundle._compute.run(lambda _: None, [None], urgent=False) is None  # all started work is done
    assert len(decoded) == 8
    assert len(list(step.finish_bundle())) == 40
    step.teardown()
