"""The labeling steps in a pipeline of one's own."""

from pathlib import Path

import apache_beam as beam
import numpy as np
import pytest
from apache_beam.runners.portability.fn_api_runner import FnApiRunner
from apache_beam.testing.util import assert_that, equal_to
from apache_beam.transforms.window import FixedWindows, TimestampedValue

from beamlabel.transforms.decoding.decode import DecodeOptions
from beamlabel.transforms.inference.predict import PredictOptions
from beamlabel.transforms.label_images import LabelImages
from beamlabel.transforms.loading.fetch import FetchOptions
from beamlabel.transforms.loading.load_images import LoadImages, LoadOptions, load_one
from beamlabel.transforms.module.compile import CompileOptions, compiled
from beamlabel.transforms.module.resolve import resolve_module
from beamlabel.transforms.records import Failure, ImageInfo, ImageRef, LoadedImage, Reason
from beamlabel.transforms.writing.write_unit import WriteUnit
from support.jobs import TINY, photos
from support.outputs import PLAIN


@pytest.fixture(scope="module")
def artifact(tmp_path_factory):
    cache = tmp_path_factory.mktemp("cache")
    return compiled(resolve_module(TINY, cache), CompileOptions(), cache)


def load_options(**changes):
    return LoadOptions(FetchOptions(), DecodeOptions(height=32, width=32), **changes)


def predict_options(artifact, **changes):
    return PredictOptions(str(artifact.path), artifact.sha256, **changes)


def test_every_uri_is_a_prediction_or_a_failure(tmp_path, artifact):
    paths = photos(tmp_path, 5)
    paths[2].write_bytes(b"no image")
    with beam.Pipeline(runner=FnApiRunner()) as p:
        uris = p | beam.Create([path.name for path in paths])
        transform = LabelImages(load_options(), predict_options(artifact), base_dir=str(tmp_path))
        labeled = uris | transform
        good = labeled.predictions | beam.Map(lambda p: (p.ref.uri, len(p.class_ids), p.embedding.shape))
        assert_that(good, equal_to([(paths[i].name, 5, (64,)) for i in (0, 1, 3, 4)]))
        bad = labeled.failures | beam.Map(lambda f: (f.uri, f.reason))
        assert_that(bad, equal_to([(paths[2].name, Reason.NOT_AN_IMAGE)]), label="failures")


def test_inline_references_and_windows_are_kept(tmp_path, artifact):
    data = [path.read_bytes() for path in photos(tmp_path, 4)]
    refs = [ImageRef(f"mem-{i}", f"mem-{i}", "", data=d) for i, d in enumerate(data)]
    with beam.Pipeline(runner=FnApiRunner()) as p:
        timed = (
            p
            | beam.Create(list(enumerate(refs)))
            | beam.MapTuple(lambda i, ref: TimestampedValue(ref, 100 * i))
        )
        labeled = (
            timed
            | beam.WindowInto(FixedWindows(100))
            | LabelImages(load_options(), predict_options(artifact))
        )
        windows = labeled.predictions | beam.Map(
            lambda p, window=beam.DoFn.WindowParam: (p.ref.uri, int(window.start))
        )
        assert_that(windows, equal_to([(f"mem-{i}", 100 * i) for i in range(4)]))


def test_more_images_than_the_window_holds_all_arrive(tmp_path):
    paths = photos(tmp_path, 12)
    refs = [ImageRef(str(path), str(path), str(path)) for path in paths]
    with beam.Pipeline(runner=FnApiRunner()) as p:
        loaded = p | beam.Create(refs) | LoadImages(load_options(threads=2, window=3))
        assert_that(loaded | beam.Map(lambda image: image.ref.uri), equal_to([str(path) for path in paths]))


def test_load_one_never_raises(tmp_path):
    (path,) = photos(tmp_path, 1)
    good = load_one(ImageRef("a", "a", str(path)), load_options())
    assert isinstance(good, LoadedImage)
    assert good.pixels.shape == (32, 32, 3)
    missing = load_one(ImageRef("a", "a", str(tmp_path / "gone")), load_options())
    assert isinstance(missing, Failure) and missing.reason is Reason.NOT_FOUND
    bug = load_one(ImageRef("a", "a", None), load_options())  # type: ignore[arg-type]
    assert isinstance(bug, Failure)


def test_an_inline_image_above_the_byte_cap_is_refused(tmp_path):
    (path,) = photos(tmp_path, 1)
    options = LoadOptions(FetchOptions(max_bytes=10), DecodeOptions(height=32, width=32))
    failure = load_one(ImageRef("a", "a", "", data=path.read_bytes()), options)
    assert isinstance(failure, Failure) and failure.reason is Reason.TOO_MANY_BYTES


@pytest.mark.parametrize(
    ("change", "message"), [({"threads": 0}, "not 0"), ({"threads": 8, "window": 4}, "not 4")]
)
def test_bad_load_options_are_refused(change, message):
    with pytest.raises(ValueError, match=message):
        load_options(**change)


@pytest.mark.parametrize(
    ("change", "message"),
    [({"scores": "max"}, "'max'"), ({"batch_size": 0}, "not 0"), ({"top_k": -1}, "not -1")],
)
def test_bad_predict_options_are_refused(artifact, change, message):
    with pytest.raises(ValueError, match=message):
        predict_options(artifact, **change)


@pytest.mark.parametrize("unknown", [Path("a.jpg"), 7, b"a.jpg", None], ids=str)
def test_an_element_of_another_type_is_refused(tmp_path, artifact, unknown):
    expected = f"{type(unknown).__name__}.*ImageRef"
    with pytest.raises(Exception, match=expected), beam.Pipeline(runner=FnApiRunner()) as p:
        _ = p | beam.Create([unknown]) | LabelImages(load_options(), predict_options(artifact))
    image = LoadedImage(ImageRef("a", "a", "a"), np.zeros((32, 32, 3), np.uint8), ImageInfo(1, 1, "png", 1))
    for other in (unknown, image):
        expected = f"{type(other).__name__}.*ImageRef"
        with pytest.raises(Exception, match=expected), beam.Pipeline(runner=FnApiRunner()) as p:
            _ = p | beam.Create([other]).with_output_types(object) | LoadImages(load_options())
        with (
            pytest.raises(Exception, match=f"{type(other).__name__}.*Prediction"),
            beam.Pipeline(runner=FnApiRunner()) as p,
        ):
            _ = p | beam.Create([other]).with_output_types(object) | WriteUnit(PLAIN, str(tmp_path))
