"""The identity of an image: equal only if the location is certainly the same, with any credentials."""

import pytest

from beamlabel.transforms.storage.identity import (
    canonical_location,
    content_hash,
    image_id,
    image_id_of_bytes,
)

SAME = [
    ("/data/a.jpg", "/data//a.jpg", "/data/./a.jpg", "//data/././a.jpg"),
    (
        "https://h/a",
        "HTTPS://H/a",
        "https://h:443/a",
        "https://user:pw@h/a",
        "https://h/a#top",
        "https://h/a?token=x",
    ),
    ("http://h/", "http://h", "http://h:80", "http://h:/"),
    ("https://h/a?id=1", "https://h/a?id=1&X-Amz-Signature=x&X-Amz-Date=y", "https://h/a?token=z&id=1"),
    ("https://h/a?id=1&b=2", "https://h/a?id=1&sig=s&sv=3&b=2"),
    ("gs://b/a", "GS://b/a"),
    ("s3://b/a", "s3://b/a?X-Amz-Credential=c&X-Amz-Signature=s"),
    ("sftp://h/a", "sftp://user:pw@h/a"),
]
OTHER = [
    (
        "/data/a.jpg",
        "/data/A.jpg",
        "/data/x/../a.jpg",
        "/other/a.jpg",
        "gs://data/a.jpg",
        "/data/a.jpg?token=1",
    ),
    ("https://h/a", "http://h/a", "https://h:8443/a", "https://h/a?id=1", "https://h/a?id=2", "https://h/A"),
    ("https://h/a?id=1&b=2", "https://h/a?b=2&id=1"),
    ("https://h/a?sr=1", "https://h/a?sr=2", "https://h/a?policy=1", "https://h/a?key=a.jpg"),
    ("gs://b/a", "gs://b//a", "gs://b/a?token=1", "gs://b/./a", "gs://c/a"),
]


@pytest.mark.parametrize("locations", SAME)
def test_spellings_of_one_location(locations):
    assert len({image_id(location) for location in locations}) == 1


@pytest.mark.parametrize("locations", OTHER)
def test_other_locations(locations):
    assert len({image_id(location) for location in locations}) == len(locations)


def test_the_numbers_are_written_down():
    """A change would label every image of all earlier outputs again."""
    assert image_id("/data/a.jpg") == "412bb9c754abd295c7ca6eb63f3a0afd"
    assert image_id("https://h/a?id=1&token=x") == "1f1e398ec60e8462e4faecd36906be60"
    assert image_id_of_bytes(b"image") == "30aba1c5f98d5bb264d7c3c157a3996f"
    # The 128-bit XXH3 digest of the empty input, see https://github.com/Cyan4973/xxHash.
    assert content_hash(b"") == "99aa06d3014798d86001c324468d497f"


def test_bytes_are_never_a_location():
    text = canonical_location("/data/a.jpg").encode()
    assert image_id_of_bytes(text) != image_id("/data/a.jpg")


def test_names_that_are_not_utf8():
    name = b"/data/\xff.jpg".decode("utf-8", "surrogateescape")
    assert len(image_id(name)) == 32
