"""The image and URI columns that are found without options, and those that are refused."""

import json

import pyarrow as pa
import pytest

from beamlabel.transforms.inputs.image_columns import find_columns, is_image_type, is_uri_type
from beamlabel.transforms.inputs.parquet_source import choose_columns

STRING, BINARY = pa.string(), pa.binary()
IMAGE = pa.struct([("bytes", BINARY), ("path", STRING)])


def hugging_face(fields, **features):
    """A schema with the metadata of ``datasets``."""
    told = {"info": {"features": features}}
    return pa.schema(fields, metadata={"huggingface": json.dumps(told)})


@pytest.mark.parametrize(
    ("schema", "found"),
    [
        (pa.schema([("image", IMAGE), ("label", pa.int64())]), (None, "image")),
        (pa.schema([("label", STRING), ("caption", STRING), ("jpg", IMAGE)]), (None, "jpg")),
        (pa.schema([("url", STRING), ("image", IMAGE)]), (None, "image")),
        (pa.schema([("images", pa.list_(IMAGE))]), (None, "images")),
        (pa.schema([("images", pa.large_list(IMAGE))]), (None, "images")),
        (pa.schema([("x", pa.struct([("path", STRING), ("bytes", pa.large_binary())]))]), (None, "x")),
        (hugging_face([("image", IMAGE)], image={"_type": "Image"}), (None, "image")),
        (hugging_face([("image", BINARY)], image={"_type": "Image"}), (None, "image")),
        (hugging_face([("images", pa.list_(IMAGE))], images=[{"_type": "Image"}]), (None, "images")),
        (
            hugging_face(
                [("images", pa.list_(IMAGE))], images={"_type": "List", "feature": {"_type": "Image"}}
            ),
            (None, "images"),
        ),
        (
            hugging_face(
                [("audio", IMAGE), ("image", IMAGE)], audio={"_type": "Audio"}, image={"_type": "Image"}
            ),
            (None, "image"),
        ),
        (hugging_face([("clip", IMAGE), ("url", STRING)], clip={"_type": "Video"}), ("url", None)),
        (pa.schema([("uri", BINARY), ("n", pa.int8())]), ("uri", None)),
        (pa.schema([("url", pa.dictionary(pa.int32(), BINARY))]), ("url", None)),
        (pa.schema([("path", pa.list_(STRING))]), ("path", None)),
        (
            pa.schema([("meta", pa.struct([("bytes", pa.int64()), ("path", STRING)])), ("url", STRING)]),
            ("url", None),
        ),
        (
            pa.schema([("blob", pa.struct([("bytes", BINARY), ("x", STRING)])), ("url", STRING)]),
            ("url", None),
        ),
    ],
)
def test_the_column_is_found(schema, found):
    assert find_columns(schema, "x.parquet") == found


@pytest.mark.parametrize(
    ("schema", "options"),
    [
        (pa.schema([("left", IMAGE), ("right", IMAGE)]), ("--image_column", "left, right")),
        (pa.schema([("image", BINARY), ("n", pa.int8())]), ("--image_column", "--uri_column")),
        (pa.schema([("n", pa.int8())]), ("--image_column", "--uri_column")),
        (hugging_face([("audio", IMAGE)], audio={"_type": "Audio"}), ("--image_column", "--uri_column")),
        (pa.schema([]), ("--image_column", "--uri_column")),
    ],
)
def test_an_ambiguous_module_is_refused_with_the_options(schema, options):
    with pytest.raises(ValueError) as error:
        find_columns(schema, "x.parquet")
    assert all(option in str(error.value) for option in (*options, "x.parquet"))


@pytest.mark.parametrize("metadata", [b"{", b"[]", b"{}", b'{"info": {"features": {"image": 3}}}'])
def test_metadata_that_say_nothing_do_no_harm(metadata):
    schema = pa.schema([("image", IMAGE)], metadata={"huggingface": metadata})
    assert find_columns(schema, "x.parquet") == (None, "image")


TEXTS = [
    STRING,
    pa.large_string(),
    pa.string_view(),
    BINARY,
    pa.large_binary(),
    pa.binary_view(),
    pa.binary(9),
]


@pytest.mark.parametrize("kind", [*TEXTS, pa.dictionary(pa.int32(), BINARY)], ids=str)
def test_types_of_uris_also_in_lists(kind):
    for outer in (kind, pa.list_(kind), pa.large_list(kind), pa.list_(kind, 2), pa.list_view(kind)):
        assert is_uri_type(outer)
    assert not is_uri_type(pa.list_(pa.list_(kind)))


def test_types_of_images():
    assert is_image_type(pa.list_(IMAGE))
    assert not is_image_type(pa.list_(pa.list_(IMAGE)))
    assert not is_image_type(pa.struct([("bytes", STRING), ("path", STRING)]))
    assert not is_image_type(pa.struct([("bytes", BINARY), ("path", pa.int64())]))


def test_a_list_beside_another_column_is_refused():
    schema = pa.schema([("uri", STRING), ("images", pa.list_(IMAGE))])
    with pytest.raises(ValueError, match="--uri_column 'uri' and --image_column 'images'"):
        choose_columns(schema, uri="uri", image="images", kept=(), path="x.parquet")
    assert choose_columns(schema, uri=None, image="images", kept=(), path="x.parquet").lists
