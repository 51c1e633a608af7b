"""Places of the rows of earlier outputs that hold the features of an image, and the columns read from them.

The launcher collects the places in an index (``pipeline/earlier``); a unit reads those of its images, see
``units/earlier_shards.py``.
"""

from __future__ import annotations

import struct
from typing import NamedTuple

import pyarrow as pa

FEATURE_PLACE = struct.Struct("<IIQQ")
"""The index entry of an image: a ``FeaturePlace``."""


class FeaturePlace(NamedTuple):
    """The place of a row that holds the features of an image.

    Attributes:
      shard: number of its file, see ``EarlierShard``.
      row: its number in the file.
      stat: ``selection.stat_hash`` of the image's last known size and version.
      content: ``identity.content_bits`` of the image.
    """

    shard: int
    row: int
    stat: int
    content: int


class EarlierShard(NamedTuple):
    """A data file of an earlier output, with its size and version from the launcher."""

    path: str
    size: int | None
    version: str | None


def image_columns() -> pa.Schema:
    """The columns of the image itself, independent of the module."""
    text, number = pa.string(), pa.int32()
    required = {"width": number, "height": number, "format": text, "source_bytes": pa.int64()}
    fields = [pa.field(name, kind, nullable=False) for name, kind in required.items()]
    return pa.schema(
        [*fields, pa.field("source_version", text), pa.field("content_hash", text, nullable=False)]
    )


def feature_columns(dimension: int) -> pa.Schema:
    """The columns read from an earlier row: identity, features of this dimension, and those of the image."""
    features = pa.list_(pa.field("element", pa.float32()), dimension)
    own = [pa.field("image_id", pa.string(), nullable=False), pa.field("embedding", features, nullable=False)]
    return pa.schema([*own, *image_columns()])
