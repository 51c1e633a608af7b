"""Less common element types, through the coders that Beam chooses for them."""

import collections
import dataclasses
import typing

import apache_beam as beam
import pytest
from apache_beam.portability.api import schema_pb2
from apache_beam.runners.portability.fn_api_runner import FnApiRunner
from apache_beam.typehints import schemas

from beamlabel import FailedImage, LabelImages
from support.collect import Collect
from support.jobs import TINY, photos


class Photo(typing.NamedTuple):
    uri: str
    customer: int


@pytest.fixture
def paths(tmp_path):
    """A good image and a file that is not an image."""
    good, bad = photos(tmp_path, 2)
    bad.write_bytes(b"no image")
    return good, bad


@dataclasses.dataclass(frozen=True)
class FrozenOrder:
    uri: str
    customer: int


class AnyName(typing.NamedTuple):
    uri: typing.Union[str, bytes, None]


def through_coders(elements, kind=None):
    """(predictions, failures) after a shuffle, which uses the coder of the declared type."""
    predictions, failures = Collect(), Collect()
    with beam.Pipeline(runner=FnApiRunner()) as p:
        images = p | beam.Create(elements)
        if kind is not None:
            images = images | beam.Map(lambda element: element).with_output_types(kind)
        labeled = images | LabelImages(TINY)
        _ = labeled.predictions | "P" >> beam.Reshuffle() | "Predictions" >> predictions
        _ = labeled.failures | "F" >> beam.Reshuffle() | "Failures" >> failures
    return predictions.values, failures.values


@pytest.mark.parametrize(
    "make",
    [
        lambda uri: {"uri": uri},
        lambda uri: Photo(uri, 1),
        lambda uri: (1, {"uri": uri}),
    ],
    ids=["dict", "row", "pair"],
)
def test_none_among_others_is_a_failure(paths, make):
    predictions, failures = through_coders([make(str(paths[0])), make(str(paths[1])), None])
    assert len(predictions) == 1 and len(failures) == 2
    (of_none,) = [failed for failed in failures if isinstance(failed, FailedImage)]
    assert of_none.reason == "null_uri"


def test_none_under_a_key_among_dicts(paths):
    predictions, failures = through_coders([(1, {"uri": str(paths[0])}), (2, None)])
    assert [key for key, _ in predictions] == [1]
    assert [(key, failed.reason) for key, failed in failures] == [(2, "null_uri")]


def test_frozen_dataclasses(paths):
    predictions, failures = through_coders([FrozenOrder(str(path), 7) for path in paths])
    assert [(row.uri, row.customer) for row in predictions] == [(str(paths[0]), 7)]
    assert [(row.uri, row.customer) for row in failures] == [(str(paths[1]), 7)]


def test_fields_of_several_types(paths):
    uris = [str(paths[0]), str(paths[0]).encode(), None]
    predictions, failures = through_coders([AnyName(uri) for uri in uris])
    assert {row.uri for row in predictions} == set(uris[:2])
    assert [row.reason for row in failures] == ["null_uri"]


@pytest.mark.parametrize(
    ("kind", "make"),
    [
        (typing.Mapping[str, typing.Any], lambda path: {"uri": str(path)}),
        (typing.Annotated[str, "a URI"], str),
    ],
    ids=["mapping", "annotated"],
)
def test_other_names_of_types(paths, kind, make):
    predictions, failures = through_coders([make(path) for path in paths], kind)
    assert len(predictions) == len(failures) == 1


class Postponed(typing.NamedTuple):
    """As in a module with `from __future__ import annotations`."""

    uri: "str"
    customer: "int | None"
    tags: "list[str]"


@dataclasses.dataclass(frozen=True)
class PostponedOrder:
    uri: "str"
    customer: "int | None"
    tags: "typing.Sequence[str]"


class Derived(Photo):
    """A type whose fields Beam's own types do not cover."""


Untyped = collections.namedtuple("Untyped", "uri customer")


@pytest.mark.parametrize("kind", [Derived, Untyped])
def test_other_named_tuples(paths, kind):
    predictions, failures = through_coders([kind(str(path), 7) for path in paths])
    assert [(row.uri, row.customer) for row in predictions] == [(str(paths[0]), 7)]
    assert [(row.uri, row.customer) for row in failures] == [(str(paths[1]), 7)]


@pytest.mark.parametrize("kind", [Postponed, PostponedOrder])
def test_postponed_annotations_are_types_of_the_schema(kind):
    labeled = beam.Pipeline(runner=FnApiRunner()) | beam.Create([kind("a.jpg", 1, ["x"])]) | LabelImages(TINY)
    for part in labeled:
        uri, customer, tags = schemas.schema_from_element_type(part.element_type).fields[:3]
        assert uri.type.atomic_type == schema_pb2.STRING and not uri.type.nullable
        assert customer.type.atomic_type == schema_pb2.INT64 and customer.type.nullable
        assert tags.type.array_type.element_type.atomic_type == schema_pb2.STRING


class Unresolved(typing.NamedTuple):
    uri: str
    other: "Unknown"  # noqa: F821 (only type checkers know it)


def test_annotations_that_cannot_be_resolved(paths):
    predictions, failures = through_coders([Unresolved(str(path), 1) for path in paths])
    assert [row.other for row in predictions + failures] == [1, 1]
