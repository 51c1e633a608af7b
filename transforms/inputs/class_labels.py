"""Names of classes, from the metadata that Hugging Face's ``datasets`` writes into Parquet files.

The key ``huggingface`` of the schema holds JSON. In it, ``info.features`` describes each column: a class is ``{"names":
[...], "_type": "ClassLabel"}`` and is stored as its index, -1 for none; a list is ``[F]``, or ``{"feature": F, "_type":
"Sequence"}`` (or ``List``, ``LargeList``), a struct is an object of its fields
(https://huggingface.co/docs/datasets/about_dataset_features). A ``Sequence`` of a struct is stored as a struct of
lists.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from beamlabel.transforms.rows.exact_cast import rebuilt
from beamlabel.transforms.rows.types import is_list

_KEY = b"huggingface"
_LISTS = ("Sequence", "List", "LargeList")


def class_features(schema: pa.Schema) -> Mapping[str, Any]:
    """The description of each column, by its name; empty if the file has none."""
    try:
        features = json.loads((schema.metadata or {}).get(_KEY, b"{}"))["info"]["features"]
    except (ValueError, KeyError, TypeError):
        return {}
    return features if isinstance(features, dict) else {}


def named_type(kind: pa.DataType, feature: Any) -> pa.DataType:
    """The type of a column with names in place of classes; the same type if it holds no classes."""
    if isinstance(kind, pa.BaseExtensionType):
        return kind
    if _names(feature) and pa.types.is_integer(kind):
        return pa.string()
    if is_list(kind):
        child = _inner(kind, feature, 0)
        inner = named_type(kind.value_type, child)
        return kind if inner == kind.value_type else pa.list_(kind.value_field.with_type(inner))
    if pa.types.is_struct(kind):
        fields = [kind.field(place) for place in range(kind.num_fields)]
        return pa.struct(
            [f.with_type(named_type(f.type, _inner(kind, feature, place))) for place, f in enumerate(fields)]
        )
    return kind


def named(column: pa.Array, feature: Any) -> pa.Array:
    """A column with names in place of classes, of the type ``named_type``; -1 becomes null.

    Raises:
      ValueError: a class has no name.
    """
    kind, target = column.type, named_type(column.type, feature)
    if kind == target:
        return column
    if pa.types.is_integer(kind):
        return _named_classes(column, _names(feature))
    return rebuilt(column, target, lambda place, values, _: named(values, _inner(kind, feature, place)))


def _named_classes(classes: pa.Array, names: list[str]) -> pa.Array:
    known = pc.if_else(pc.equal(classes, pa.scalar(-1)), None, classes)
    bounds = pc.min_max(known).as_py()
    for bound in bounds.values():
        if bound is not None and not 0 <= bound < len(names):
            raise ValueError(f"class {bound} has no name; the file's metadata has {len(names)} names")
    return pa.array(names, pa.string()).take(known)


def _names(feature: Any) -> list[str]:
    if not isinstance(feature, dict) or feature.get("_type") != "ClassLabel":
        return []
    names = feature.get("names")
    return names if isinstance(names, list) and all(isinstance(name, str) for name in names) else []


def _inner(kind: pa.DataType, feature: Any, place: int) -> Any:
    """The description of a list's values or a struct's field; None if there is none."""
    is_sequence = isinstance(feature, dict) and feature.get("_type") in _LISTS
    if is_list(kind):
        if is_sequence:
            return feature.get("feature")
        return feature[0] if isinstance(feature, list) and len(feature) == 1 else None
    name = kind.field(place).name
    if is_sequence and isinstance(feature.get("feature"), dict):
        inner = feature["feature"].get(name)
        return None if inner is None else [inner]
    return feature.get(name) if isinstance(feature, dict) else None
