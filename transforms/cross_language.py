"""``LabelImages`` for pipelines in Java, Go and every language whose SDK calls Beam's expansion services.

The import registers it; ``python -m beamlabel.pipeline.runners.expansion_service`` serves it.
"""

from __future__ import annotations

import difflib
import inspect
import types
import typing
from collections.abc import Sequence
from typing import Any, TypeAlias

import apache_beam as beam
from apache_beam.coders import RowCoder
from apache_beam.portability.api import external_transforms_pb2

from beamlabel.transforms.label_images import LabelImages

URN = "beamlabel:transform:label_images:v1"
Payload: TypeAlias = external_transforms_pb2.ExternalConfigurationPayload


@beam.PTransform.register_urn(URN, Payload)
def from_payload(transform: Any, payload: Payload, context: Any) -> LabelImages:
    """The transform that another language asks for, by the parameters that Beam calls it with.

    Args:
      transform: its proto; not read.
      payload: its arguments, see ``arguments``.
      context: the pipeline's; not read.

    Raises:
      ValueError: an argument is unknown or wrong; names it. See ``LabelImages``.
    """
    return LabelImages(**arguments(payload))


def arguments(payload: Payload) -> dict[str, Any]:
    """The keyword arguments of ``LabelImages`` that a payload holds.

    Args:
      payload: a schema and a row of it, as in ``external_transforms.proto`` of Beam. A field has the name of an
        argument; one that is null is as one that is not there.

    Raises:
      ValueError: a field has the name of no argument, or a value of another type than it; or there is no module.
    """
    hints = typing.get_type_hints(LabelImages.__init__)
    known = list(inspect.signature(LabelImages).parameters)
    given = [field.name for field in payload.schema.fields]
    if unknown := [name for name in given if name not in known]:
        raise ValueError(f"{URN}: {_no_argument(unknown[0], known)}")
    row = RowCoder(payload.schema).decode(payload.payload) if given else ()
    values = {
        name: _typed(name, value, hints[name])
        for name, value in zip(given, row, strict=True)
        if value is not None
    }
    if "module" not in values:
        raise ValueError(f"{URN}: the argument 'module' is missing: name the module")
    return values


def _no_argument(name: str, known: list[str]) -> str:
    close = difflib.get_close_matches(name, known, 1)
    hint = f"did you mean {close[0]!r}? " if close else ""
    return f"no argument is called {name!r}; {hint}There are {', '.join(known)}"


def _typed(name: str, value: Any, hint: Any) -> Any:
    """The value of an argument; an array as a tuple, and a whole number as the fraction that is wanted.

    Raises:
      ValueError: the argument has another type.
    """
    try:
        return _as(hint, value)
    except TypeError:
        shown = hint.__name__ if isinstance(hint, type) else hint
        raise ValueError(f"{URN}: {name} must be {shown}, not {value!r}") from None


def _as(hint: Any, value: Any) -> Any:
    origin, parts = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        for part in parts:
            try:
                return _as(part, value)
            except TypeError:
                continue
    elif origin in (tuple, Sequence):
        if isinstance(value, list):
            wanted = parts if origin is tuple else parts * len(value)
            if len(wanted) == len(value):
                return tuple(_as(part, item) for part, item in zip(wanted, value, strict=True))
    elif hint is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    # A bool is an int in Python, and no number in a schema.
    elif isinstance(value, origin or hint) and (hint is bool or not isinstance(value, bool)):
        return value
    raise TypeError
