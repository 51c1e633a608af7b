"""A published result, found by its ``_MANIFEST.json``."""

from __future__ import annotations

import json
from typing import Any

from pipeline import layout, staging
from pipeline.options import UsageError
from transforms import storage


def absolute(output: str) -> str:
    """The output folder as ``storage`` takes it, without a last slash.

    Raises:
      UsageError: not a path or URI.
    """
    try:
        return storage.absolute(output).rstrip("/")
    except ValueError as error:
        raise UsageError(f"OUTPUT {output!r}: {error}") from error


def read_manifest(output: str) -> dict[str, Any]:
    """What ``_MANIFEST.json`` in an absolute ``output`` says.

    Raises:
      UsageError: there is no result of beamlabel, or it cannot be reached.
      ValueError: the manifest is damaged.
    """
    path = storage.join(output, layout.MANIFEST)
    try:
        data = storage.read_bytes(path)
    except (FileNotFoundError, IsADirectoryError) as error:
        raise UsageError(f"OUTPUT {output!r}: {layout.MANIFEST} is not there{_hint(output)}") from error
    except (OSError, ValueError) as error:
        raise UsageError(f"OUTPUT {output!r}: {error}") from error
    manifest = json.loads(data)
    if not isinstance(manifest, dict):
        raise ValueError("it is no JSON object")
    return manifest


def _hint(output: str) -> str:
    try:
        if next(staging.holding(output, layout.COMMIT), None):
            return f"; a run was committed and not published: beamlabel publish {output}"
        if next(staging.holding(output, layout.JOB), None):
            return "; a run was begun and not finished"
    except OSError:
        pass
    return ", so no result of beamlabel"
