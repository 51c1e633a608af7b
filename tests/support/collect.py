"""Collects the elements of a PCollection in a run in this process."""

from __future__ import annotations

import threading
import uuid
from typing import Any

import apache_beam as beam

_LOCK = threading.Lock()
_FOUND: dict[str, list[Any]] = {}


def _record(element: Any, key: str) -> None:
    with _LOCK:
        _FOUND[key].append(element)


class Collect(beam.PTransform):
    """A sink that keeps the elements in ``values``; the runner's workers must be threads of this process."""

    def __init__(self) -> None:
        super().__init__()
        self._key = uuid.uuid4().hex
        _FOUND[self._key] = []

    def expand(self, elements):
        return elements | beam.Map(_record, self._key)

    @property
    def values(self) -> list[Any]:
        return _FOUND[self._key]
