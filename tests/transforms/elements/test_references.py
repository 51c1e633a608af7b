"""An element of any kind → the reference to its image, one element at a time."""

import dataclasses
import typing
from collections import OrderedDict
from pathlib import PurePosixPath

import apache_beam as beam
import pytest

from beamlabel.transforms.elements.references import ElementOptions, bare, fields_of, is_pair, reference
from beamlabel.transforms.records import Failure, ImageRef, Reason

PLAIN = ElementOptions(base_dir="/base")
INLINE = ElementOptions(uri="name", image="data", base_dir="gs://bucket/directory")


class Photo(typing.NamedTuple):
    uri: str
    n: int = 0


@dataclasses.dataclass(frozen=True)
class Frozen:
    uri: str
    n: int = 0


@pytest.mark.parametrize(
    "element",
    [
        "a.jpg",
        PurePosixPath("a.jpg"),
        {"uri": "a.jpg"},
        {"uri": b"a.jpg"},
        {"uri": PurePosixPath("a.jpg")},
        OrderedDict(uri="a.jpg"),
        Photo("a.jpg"),
        Frozen("a.jpg"),
        beam.Row(uri="a.jpg"),
        ("key", "a.jpg"),
        (1, (2, {"uri": "a.jpg"})),
        ("b.jpg", "a.jpg"),
    ],
    ids=repr,
)
def test_where_the_image_is(element):
    found = reference(element, PLAIN, 7)
    assert isinstance(found, ImageRef)
    assert (found.uri, found.location, found.data) == ("a.jpg", "/base/a.jpg", None)
    assert found.origin is not None
    assert found.origin.element is element and found.origin.timestamp == 7


@pytest.mark.parametrize("data", [b"x", bytearray(b"x"), memoryview(b"x"), b""])
def test_inline_images(data):
    for element in ({"name": "n", "data": data}, {"data": data}, ("key", {"data": data, "name": None})):
        found = reference(element, INLINE)
        assert isinstance(found, ImageRef)
        assert found.data == bytes(data) and type(found.data) is bytes and found.location == ""
    alone = reference(data, INLINE)
    assert isinstance(alone, ImageRef) and alone.data == bytes(data) and alone.uri == ""
    by_uri = reference({"name": "a.jpg", "data": None}, INLINE)
    assert isinstance(by_uri, ImageRef) and by_uri.location == "gs://bucket/directory/a.jpg"


@pytest.mark.parametrize(
    ("element", "reason", "uri"),
    [
        (None, Reason.NULL_URI, None),
        ("", Reason.NULL_URI, None),
        ({}, Reason.NULL_URI, None),
        ({"url": "a.jpg"}, Reason.NULL_URI, None),
        (Photo(None), Reason.NULL_URI, None),  # type: ignore[arg-type]
        (Frozen(""), Reason.NULL_URI, None),
        ({"uri": float("nan")}, Reason.NULL_URI, None),
        ({"uri": 1.5}, Reason.INVALID_URI, None),
        ({"uri": b"\xff"}, Reason.INVALID_URI, None),
        ({"uri": "a.jpg", "width": 3}, Reason.FIELD_TAKEN, "a.jpg"),
        ({"uri": "https://u:p@host/a.jpg", "stage": 3}, Reason.FIELD_TAKEN, "https://host/a.jpg"),
    ],
    ids=repr,
)
def test_elements_that_name_no_image(element, reason, uri):
    for wrapped in (element, ("key", element)):
        found = reference(wrapped, PLAIN)
        assert isinstance(found, Failure) and found.reason is reason and found.uri == uri
        assert found.origin is not None and found.origin.element is wrapped


@pytest.mark.parametrize("character", ["a", "é", "😀"])
def test_a_uri_may_have_64_kilobytes(character):
    longest = character * (65_536 // len(character.encode()))
    for make in (str, lambda uri: {"uri": uri}, Photo, lambda uri: ("key", uri)):
        assert isinstance(reference(make(longest), PLAIN), ImageRef)
        found = reference(make(longest + character), PLAIN)
        assert isinstance(found, Failure) and found.reason is Reason.URI_TOO_LONG and found.uri is None
        assert len(found.detail) < 200


@pytest.mark.parametrize(
    "element", [7, 1.5, True, ["a.jpg"], {"a.jpg"}, ("a", "b", "c"), (), object(), Photo]
)
def test_other_elements_are_a_mistake(element):
    for wrapped in (element, ("key", element)):
        with pytest.raises(TypeError, match="hold no image"):
            reference(wrapped, PLAIN)


def test_pairs_and_fields():
    assert is_pair((1, 2)) and not is_pair(Photo("a")) and not is_pair([1, 2]) and not is_pair((1,))
    assert bare((1, (2, "a"))) == "a" and bare(Photo("a")) == Photo("a")
    assert fields_of(Photo("a", 1)) == fields_of(Frozen("a", 1)) == fields_of(beam.Row(uri="a", n=1))
    assert fields_of("a") is fields_of(None) is fields_of(Photo) is None
