"""The columns of a Parquet file that hold images or their URIs, by types, names, and Hugging Face's metadata."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import pyarrow as pa

from beamlabel.transforms.inputs.class_labels import class_features
from beamlabel.transforms.rows.types import is_bytes, is_list, is_text

# Names to look for if the options name no column.
DEFAULT_URI_COLUMNS = ("uri", "url", "path")
# If there is none of these: the only column with one of these names, in any case.
_URI_NAMES = frozenset(
    (*DEFAULT_URI_COLUMNS, "image_uri", "image_url", "image_path", "img_url", "img_path", "file_name", "filename",
     "file_path", "filepath")
)  # fmt: skip
# Hugging Face also stores audio and video as a struct of bytes and path.
_IMAGE = "Image"


def value_type(kind: pa.DataType) -> pa.DataType:
    """The type of one reference: of a list's values, without a dictionary."""
    kind = kind.value_type if is_list(kind) else kind
    return kind.value_type if pa.types.is_dictionary(kind) else kind


def is_uri_type(kind: pa.DataType) -> bool:
    """Whether a column can hold URIs: strings, bytes that are UTF-8, or lists of them."""
    return is_text(value_type(kind)) or is_bytes(value_type(kind))


def is_image_type(kind: pa.DataType) -> bool:
    """Whether a column can hold encoded images: bytes, structs with a field ``bytes`` of bytes, or lists of them."""
    kind = value_type(kind)
    return is_image_struct(kind) or is_bytes(kind)


def is_image_struct(kind: pa.DataType) -> bool:
    """Whether it is a struct with a field ``bytes`` of bytes; its ``path``, if any, must hold text or bytes."""
    if not pa.types.is_struct(kind):
        return False
    data, path = (kind.get_field_index(name) for name in ("bytes", "path"))
    return data >= 0 and is_bytes(kind.field(data).type) and (path < 0 or is_uri_type(kind.field(path).type))


def find_columns(schema: pa.Schema, path: str) -> tuple[str | None, str | None]:
    """The column of URIs or of images if the options name none; one of the two is None.

    A struct of ``bytes`` and ``path``, or a column that Hugging Face's metadata call an image, takes precedence over
    URIs: the row has the bytes, and a URI beside them only names their source. An ambiguous file is refused.

    Raises:
      ValueError: names the options, the file and its columns.
    """
    there = ", ".join(f"{field.name} ({field.type})" for field in schema)
    images = list(_images(schema))
    if len(images) > 1:
        raise ValueError(
            f"--image_column: name the column of images in {path}; candidates: {', '.join(images)}; columns: {there}"
        )
    if images:
        return None, images[0]
    uri = next(
        (name for name in DEFAULT_URI_COLUMNS if name in schema.names and _is_uri(schema, name)),
        None,
    )
    texts = [field.name for field in schema if not is_list(field.type) and is_text(value_type(field.type))]
    for names in (list(filter(is_uri_name, texts)), texts):
        if uri is None and len(names) == 1:
            uri = names[0]
    if uri is None:
        raise ValueError(
            f"--uri_column: name the column of URIs in {path}, or the column of images with --image_column; columns: "
            f"{there}"
        )
    return uri, None


def is_uri_name(name: str) -> bool:
    """Whether a column of this name most likely holds URIs."""
    return name.strip().lower() in _URI_NAMES


def _is_uri(schema: pa.Schema, name: str) -> bool:
    # If two columns have the name, the caller reports it.
    return schema.names.count(name) != 1 or is_uri_type(schema.field(name).type)


def _images(schema: pa.Schema) -> Iterator[str]:
    features = class_features(schema)
    for field in schema:
        told = feature_type(features, field.name)
        kind = value_type(field.type)
        if told is None:
            # Exactly these two fields, as Hugging Face stores them; other structs may hold any bytes.
            fields = {kind.field(place).name for place in range(kind.num_fields)}
            if is_image_struct(kind) and fields == {"bytes", "path"}:
                yield field.name
        elif told == _IMAGE and is_image_type(field.type):
            yield field.name


def feature_type(features: Mapping[str, Any], name: str) -> str | None:
    """The type that Hugging Face's metadata give a column or its lists' values, such as ``Image``; None without one."""
    feature = features.get(name)
    if isinstance(feature, list) and len(feature) == 1:
        feature = feature[0]
    elif isinstance(feature, dict) and isinstance(feature.get("feature"), dict):
        feature = feature["feature"]
    kind = feature.get("_type") if isinstance(feature, dict) else None
    return kind if isinstance(kind, str) else None
