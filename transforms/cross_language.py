"""``LabelImages`` for pipelines in Java, Go and all other languages whose SDK calls Beam's expansion services.

Importing this module registers it; ``python -m beamlabel.pipeline.runners.expansion_service`` serves it.
"""

from __future__ import annotations

import inspect
from typing import Any, TypeAlias

import apache_beam as beam
from apache_beam.coders import RowCoder
from apache_beam.portability.api import external_transforms_pb2

from beamlabel.transforms.arguments import no_argument, type_hints, typed
from beamlabel.transforms.label_images import LabelImages

URN = "beamlabel:transform:label_images:v1"
Payload: TypeAlias = external_transforms_pb2.ExternalConfigurationPayload


@beam.PTransform.register_urn(URN, Payload)
def from_payload(transform: Any, payload: Payload, context: Any) -> LabelImages:
    """Creates the transform that another language requests; Beam passes these parameters.

    Args:
      transform: its proto; not read.
      payload: its arguments, see ``arguments``.
      context: the pipeline's context; not read.

    Raises:
      ValueError: an argument is unknown or wrong; the message names it. See ``LabelImages``.
    """
    return LabelImages(**arguments(payload))


def arguments(payload: Payload) -> dict[str, Any]:
    """The keyword arguments of ``LabelImages`` in a payload.

    Args:
      payload: a schema and a row of it, as in Beam's ``external_transforms.proto``. A field has the name of an
        argument; a null field counts as missing.

    Raises:
      ValueError: a field does not have the name of an argument, or its value has the wrong type, or ``module`` is
        missing.
    """
    hints = type_hints(LabelImages.__init__)
    known = list(inspect.signature(LabelImages).parameters)
    given = [field.name for field in payload.schema.fields]
    if unknown := [name for name in given if name not in known]:
        raise ValueError(f"{URN}: {no_argument(unknown[0], known)}")
    row = RowCoder(payload.schema).decode(payload.payload) if given else ()
    try:
        values = {
            name: typed(name, value, hints[name])
            for name, value in zip(given, row, strict=True)
            if value is not None
        }
    except ValueError as error:
        raise ValueError(f"{URN}: {error}") from None
    if "module" not in values:
        raise ValueError(f"{URN}: the argument 'module' is missing")
    return values
