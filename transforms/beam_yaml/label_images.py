"""``LabelImages`` for Beam YAML: arguments that YAML can express, and named outputs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import apache_beam as beam

from beamlabel.transforms import label_images

_PREDICTIONS, _FAILURES = "predictions", "failures"


class LabelImages(beam.PTransform):
    """Turns rows with an image into the outputs ``predictions`` and ``failures``: the same rows, with fields added.

    Example::

        - type: LabelImages
          input: ReadFromCsv
          config:
            module: https://tfhub.dev/google/imagenet/mobilenet_v2_075_160/classification/1
            uri: path
            error_handling:
              output: failures

    Args:
      module: as for ``beamlabel.LabelImages``.
      error_handling: Beam's: ``{output: NAME}`` gives the failures this name, and the bare name of the step then means
        its predictions. Beam requires a step to read the failures. None: the output is called ``failures``, and no step
        needs to read it.
      **arguments: the arguments of ``beamlabel.LabelImages``; a list stands for a tuple.

    Raises:
      TypeError: there is no such argument.
      ValueError: a value is not allowed; the message names its argument.
    """

    def __init__(
        self, module: str, *, error_handling: Mapping[str, Any] | None = None, **arguments: Any
    ) -> None:
        super().__init__()
        self._failures = _failures_name(error_handling)
        self._label = label_images.LabelImages(module, **arguments)

    def expand(self, images: beam.PCollection[Any]) -> dict[str, beam.PCollection[Any]]:
        labeled = images | self._label
        return {_PREDICTIONS: labeled.predictions, self._failures: labeled.failures}


def _failures_name(error_handling: Mapping[str, Any] | None) -> str:
    if error_handling is None:
        return _FAILURES
    given = error_handling if isinstance(error_handling, Mapping) else {}
    name = given.get("output")
    if set(given) != {"output"} or not isinstance(name, str) or name in ("", _PREDICTIONS):
        raise ValueError(
            "error_handling must be {output: NAME}, with a name for the failures other than "
            f"{_PREDICTIONS!r}, not {error_handling!r}"
        )
    return name
