"""The model handler: outcomes keep the order of the elements, and unknown arguments are refused."""

import itertools

import apache_beam as beam
import numpy as np
import pytest
from apache_beam.ml.inference.base import KeyedModelHandler, MaybeKeyedModelHandler, RunInference
from apache_beam.runners.portability.fn_api_runner import FnApiRunner
from apache_beam.testing.util import assert_that, equal_to

from beamlabel.transforms.hub.resolve import resolve_module
from beamlabel.transforms.inference.options import PredictOptions
from beamlabel.transforms.inference.predict import HubModelHandler
from beamlabel.transforms.module.compile import CompileOptions, compiled
from beamlabel.transforms.predict import Predict
from beamlabel.transforms.records import Failure, ImageInfo, ImageRef, LoadedImage, Prediction
from support.jobs import TINY
from support.outputs import end, failure

IMAGES = 6


@pytest.fixture(scope="module")
def options(tmp_path_factory):
    cache = tmp_path_factory.mktemp("cache")
    artifact = compiled(resolve_module(TINY, cache), CompileOptions(), cache)
    return PredictOptions(str(artifact.path), artifact.sha256, batch_size=4)


@pytest.fixture(scope="module")
def engine(options):
    return HubModelHandler(options).load_model()


def image(number):
    pixels = np.random.default_rng(number).integers(0, 256, (32, 32, 3), dtype=np.uint8)
    return LoadedImage(ImageRef(f"{number}", f"{number}", f"{number}"), pixels, ImageInfo(32, 32, "png", 1))


def broken(number):
    """An image that the engine refuses: it fails in its batch, then alone."""
    pixels = np.zeros((1, 1, 3), np.uint8)
    return LoadedImage(ImageRef(f"{number}", f"{number}", f"{number}"), pixels, ImageInfo(1, 1, "png", 1))


def name_of(outcome):
    """The name of the element of an outcome."""
    if isinstance(outcome, Prediction):
        return outcome.ref.uri
    return outcome.uri if isinstance(outcome, Failure) else outcome.unit.unit_id


def elements(kinds):
    makers = {"image": image, "broken": broken, "failure": failure, "end": lambda n: end(1, unit_id=f"{n}")}
    return [makers[kind](number) for number, kind in enumerate(kinds)]


def names(kinds):
    return [f"missing-{n}.jpg" if kind == "failure" else f"{n}" for n, kind in enumerate(kinds)]


@pytest.mark.parametrize("size", range(1, 6))
def test_outcomes_keep_the_order_of_the_elements(options, engine, size):
    handler = KeyedModelHandler(HubModelHandler(options))
    for kinds in itertools.product(("image", "failure", "end"), repeat=size):
        keyed = list(enumerate(elements(kinds)))
        outcomes = list(handler.run_inference(keyed, engine))
        assert [key for key, _ in outcomes] == list(range(size))
        assert [name_of(outcome) for _, outcome in outcomes] == names(kinds)


@pytest.mark.parametrize("place", range(IMAGES))
def test_an_image_that_fails_keeps_its_place(options, engine, place):
    kinds = ["broken" if number == place else "image" for number in range(IMAGES)]
    outcomes = HubModelHandler(options).run_inference(elements(kinds), engine)
    assert [name_of(outcome) for outcome in outcomes] == names(kinds)
    assert [isinstance(outcome, Failure) for outcome in outcomes] == [kind == "broken" for kind in kinds]


@pytest.mark.parametrize("wrapper", [KeyedModelHandler, MaybeKeyedModelHandler])
def test_every_key_gets_its_own_image_s_result(options, engine, wrapper):
    kinds = ("image", "failure", "image", "broken", "end", "image", "image", "failure", "image")
    alone = HubModelHandler(options)
    expected = {}
    for key, element in enumerate(elements(kinds)):
        (outcome,) = alone.run_inference([element], engine)
        expected[key] = seen(outcome)
    with beam.Pipeline(runner=FnApiRunner()) as p:
        keyed = p | beam.Create(list(enumerate(elements(kinds))))
        outcomes = keyed | RunInference(wrapper(alone))
        assert_that(
            outcomes | beam.MapTuple(lambda key, outcome: (key, seen(outcome))), equal_to([*expected.items()])
        )


def seen(outcome):
    scores = tuple(outcome.scores.tolist()) if isinstance(outcome, Prediction) else None
    return name_of(outcome), type(outcome).__name__, scores


@pytest.mark.parametrize("unknown", ["a.jpg", ImageRef("a", "a", "a"), None, 7, b"bytes"], ids=str)
def test_an_element_of_another_type_is_refused(options, engine, unknown):
    handler = HubModelHandler(options)
    with pytest.raises(TypeError, match=type(unknown).__name__) as error:
        handler.run_inference([image(0), unknown], engine)
    assert "LoadedImage" in str(error.value)
    with (
        pytest.raises(Exception, match=f"{type(unknown).__name__}.*LoadedImage"),
        beam.Pipeline(runner=FnApiRunner()) as p,
    ):
        _ = p | beam.Create([unknown]).with_output_types(object) | Predict.with_options(options)
