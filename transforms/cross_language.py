"""``LabelImages`` for pipelines in Java, Go and every language whose SDK calls Beam's expansion services.

The import registers it; ``python -m beamlabel.pipeline.runners.expansion_service`` serves it.
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
        raise ValueError(f"{URN}: the argument 'module' is missing: name the module")
    return values
