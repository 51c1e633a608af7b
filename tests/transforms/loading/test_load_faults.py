"""An error in a thread ends the bundle with that error; no bundle waits for an image that never arrives."""

from __future__ import annotations

import dataclasses
import threading
from pathlib import Path
from types import SimpleNamespace

import apache_beam as beam
import pytest
from apache_beam.runners.portability.fn_api_runner import FnApiRunner
from apache_beam.transforms.window import GlobalWindow

from beamlabel.transforms.decoding.decode import DecodeOptions
from beamlabel.transforms.load_images import LoadImages
from beamlabel.transforms.loading import in_flight, load_images
from beamlabel.transforms.loading.fetch import FetchOptions
from beamlabel.transforms.loading.load_images import LoadImagesDoFn
from beamlabel.transforms.loading.load_options import LoadOptions
from beamlabel.transforms.records import ImageRef
from beamlabel.transforms.worker import compute_pool
from support.jobs import photos
from support.threads import no_more_threads

pytestmark = [
    pytest.mark.timeout(120),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning"),
]
OPTIONS = LoadOptions(FetchOptions(), DecodeOptions(height=8, width=8), threads=4, window=8)
ERRORS = [
    ValueError("injected"),
    MemoryError("injected"),
    SystemExit("injected"),
    KeyboardInterrupt("injected"),
]


def refs(uris):
    return [ImageRef(uri, f"list#{row}", str(uri), row) for row, uri in enumerate(uris)]


def load(elements, options=OPTIONS):
    """Runs one bundle through a real runner."""
    pipeline = beam.Pipeline(runner=FnApiRunner())
    _ = (
        pipeline
        | beam.Create([None])
        | beam.FlatMap(lambda _: elements).with_output_types(ImageRef)
        | LoadImages.with_options(options)
    )
    pipeline.run().wait_until_finish()


@pytest.fixture(params=["compute", "fetch"])
def road(request, monkeypatch):
    """The threads that fetch."""
    monkeypatch.setattr(in_flight.Disk, "is_slow", request.param == "fetch")
    return request.param


def test_a_path_in_place_of_a_uri(road, tmp_path):
    paths = photos(tmp_path, 3)
    with pytest.raises(Exception, match=r"PosixPath|expected str"):
        load(refs([*map(str, paths), Path(tmp_path / "missing.png")]))


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
@pytest.mark.parametrize("place", ["_fetch_timed", "_decode_timed"])
def test_an_error_anywhere_in_a_thread(road, tmp_path, monkeypatch, place, error):
    paths = photos(tmp_path, 20)
    real, calls = getattr(load_images, place), []

    def fail_at_the_fifth(*arguments):
        calls.append(arguments)
        if len(calls) == 5:
            raise error
        return real(*arguments)

    monkeypatch.setattr(load_images, place, fail_at_the_fifth)
    with pytest.raises(Exception, match="injected"):
        load(refs(map(str, paths)))
    monkeypatch.setattr(load_images, place, real)
    load(refs(map(str, paths)))  # the threads are still there


@pytest.mark.parametrize("name", ["put", "change", "wait"])
def test_an_error_in_what_is_between_the_threads(tmp_path, monkeypatch, name):
    monkeypatch.setattr(in_flight.Disk, "is_slow", True)

    def fail(*arguments):
        raise MemoryError("injected")

    owner = in_flight.Finished if name == "put" else in_flight.Backlog
    monkeypatch.setattr(owner, name, fail)
    with pytest.raises(Exception, match="injected"):
        load(refs(map(str, photos(tmp_path, 3))))


def test_a_compute_thread_that_dies(road, tmp_path, monkeypatch):
    paths = photos(tmp_path, 20)

    def fail(*arguments):
        raise MemoryError("injected")

    with monkeypatch.context() as patch:
        patch.setattr(load_images, "_decode_timed", fail)
        patch.setattr(in_flight.Finished, "fail", fail)
        with pytest.raises(Exception, match="died during a task"):
            load(refs(map(str, paths)))
    load(refs(map(str, paths)))


@pytest.mark.parametrize("place", ["_fetch_timed", "_decode_timed"])
def test_a_thread_that_hangs(road, tmp_path, monkeypatch, place):
    paths = photos(tmp_path, 20)
    real, hanging = getattr(load_images, place), threading.Event()

    def hang_at_one(ref, options, *more):
        name = (ref if place == "_fetch_timed" else ref.ref).uri
        if name == str(paths[4]):
            hanging.wait()
        return real(ref, options, *more)

    hasty = dataclasses.replace(
        OPTIONS,
        fetch=dataclasses.replace(OPTIONS.fetch, deadline=0.2),
        decode=dataclasses.replace(OPTIONS.decode, decode_deadline=0.2),
    )
    with monkeypatch.context() as patch:
        patch.setattr(load_images, place, hang_at_one)
        patch.setattr(load_images, "HANG_SECONDS", 0.0)
        patch.setattr(in_flight, "LOOK_SECONDS", 0.05)
        with pytest.raises(Exception, match="hangs"):
            load(refs(map(str, paths)), hasty)
        hanging.set()
    load(refs(map(str, paths)))


def test_progress_is_patience(monkeypatch):
    now = 100.0
    monkeypatch.setattr(in_flight, "time", SimpleNamespace(monotonic=lambda: now))
    patience = in_flight.Patience(10)
    for ready in (0, 0, 1, 1, 5):  # one more every 12 s
        patience.check(ready)
        now += 6
    now += 3
    patience.check(5)
    now += 2
    with pytest.raises(in_flight.HangError):
        patience.check(5)
    patience.renew()
    patience.check(5)


@pytest.mark.parametrize("name", ["compute-", "load-images-"])
def test_no_more_threads(tmp_path, monkeypatch, name):
    monkeypatch.setattr(in_flight.Disk, "is_slow", True)
    monkeypatch.setattr(compute_pool, "_pools", {})
    paths = photos(tmp_path, 3)
    with no_more_threads(monkeypatch, name), pytest.raises(Exception, match="can't start new thread"):
        load(refs(map(str, paths)))
    load(refs(map(str, paths)))


def test_threads_that_pause_for_an_abandoned_bundle_are_free_for_the_next(tmp_path, monkeypatch):
    """Its images wait forever to be decoded, as in a broken pool."""
    monkeypatch.setattr(in_flight.Disk, "is_slow", True)
    monkeypatch.setattr(in_flight, "BACKLOG_BYTES", 0)
    elements = refs(map(str, photos(tmp_path, 8)))
    step = LoadImagesDoFn(OPTIONS)
    step.setup()
    with monkeypatch.context() as patch:
        patch.setattr(compute_pool.ComputePool, "submit", lambda *arguments, **more: None)
        step.start_bundle()
        for element in elements:
            assert not list(step.process(element, 0, GlobalWindow()))
    step.start_bundle()
    loaded = [value for element in elements for value in step.process(element, 0, GlobalWindow())] + list(
        step.finish_bundle()
    )
    assert len(loaded) == 8
    step.teardown()
