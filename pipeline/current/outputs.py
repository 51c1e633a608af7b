"""Finds published outputs below directories and globs by their manifests."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from beamlabel.pipeline import layout
from beamlabel.pipeline.errors import UsageError
from beamlabel.pipeline.output.manifest import dated, parse_result
from beamlabel.pipeline.output.own_json import DamagedError
from beamlabel.pipeline.published import manifests
from beamlabel.transforms import storage
from beamlabel.transforms.storage.errors import is_user_error
from beamlabel.transforms.storage.inside import RealDirectory, below
from beamlabel.transforms.storage.patterns import has_glob, matcher


@dataclass(frozen=True)
class Output:
    """A published output.

    Attributes:
      directory: absolute path or URI of the directory, without a trailing slash.
      manifest: its ``_MANIFEST.json``.
    """

    directory: str
    manifest: dict[str, Any]

    @property
    def time(self) -> int:
        """See ``dated``."""
        return dated(self.manifest)

    def files(self, kind: str) -> list[dict[str, Any]]:
        """The manifest's entries of its files of a kind, in order of their names."""
        found = [file for file in self.manifest["files"] if file["kind"] == kind]
        return sorted(found, key=lambda file: str(file["name"]))

    def path(self, name: str) -> str:
        """The path of a file that the manifest names; see ``below``."""
        return below(self.directory, name)


def find_outputs(patterns: Sequence[str], option: str) -> list[Output]:
    """Finds the outputs that match patterns, each once, sorted by the start of their runs, then by the runs' ids.

    Directories without a manifest of beamlabel are left out, such as unpublished runs and other files.

    Args:
      patterns: outputs, directories of outputs, or globs of either.
      option: name of the patterns in messages.

    Raises:
      UsageError: a pattern cannot be listed, or matches nothing.
    """
    found: dict[str, Output] = {}
    for pattern in patterns:
        before = len(found)
        try:
            for file in manifests(pattern):
                directory = file.path.rpartition("/")[0]
                manifest = _read(file.path)
                if manifest is not None:
                    found.setdefault(_place(directory), Output(directory, manifest))
        except (OSError, ValueError) as error:
            if not is_user_error(error):
                raise
            raise UsageError(f"{option} {pattern!r}: {error}") from error
        if len(found) == before and not has_glob(pattern):
            raise UsageError(f"{option} {pattern!r}: no published output of beamlabel found there")
    if not found:
        raise UsageError(f"{option} {' '.join(patterns)}: no published output of beamlabel found there")
    return sorted(found.values(), key=_order)


def is_among(directory: str, patterns: Sequence[str], outputs: Sequence[Output]) -> bool:
    """Whether an absolute directory is covered by the patterns, or contains any of the outputs."""
    place = RealDirectory(directory)
    if any(place.holds(output.directory) for output in outputs):
        return True
    name = f"{directory}/{layout.MANIFEST}"
    for pattern in map(storage.absolute, patterns):
        named = pattern.rstrip("/")
        if RealDirectory(named).holds(directory) and not RealDirectory(named).is_same(directory):
            return True
        if has_glob(pattern) and (matcher(named + "/**")(name) or matcher(pattern)(directory)):
            return True
    return False


def _order(output: Output) -> tuple[Any, ...]:
    """The sort key: runs with the same time, as set by SOURCE_DATE_EPOCH, are ordered by their starts."""
    return output.time, output.manifest["started_at"], output.manifest["run_id"]


def _read(path: str) -> dict[str, Any] | None:
    try:
        return parse_result(path, storage.read_bytes(path))
    except FileNotFoundError:
        return None
    except DamagedError as error:
        raise UsageError(f"{error}: repair it or remove its directory") from error


def _place(directory: str) -> str:
    """The path of a directory with all links resolved."""
    return os.path.realpath(directory) if storage.is_local(directory) else directory
