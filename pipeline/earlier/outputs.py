"""The outputs of earlier runs: their shards and the files that their manifests name."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

from beamlabel.pipeline import layout
from beamlabel.pipeline.errors import UsageError
from beamlabel.pipeline.output.manifest import parse_result
from beamlabel.pipeline.output.own_json import DamagedError
from beamlabel.transforms import storage
from beamlabel.transforms.storage.errors import is_user_error
from beamlabel.transforms.storage.inside import RealDirectory, below
from beamlabel.transforms.storage.patterns import fixed_start

_ENDINGS = (".parquet", ".tfrecord", ".tfrecord.gz")
# beamlabel's directories without data shards; the second is that of schema version 1.
_OWN_DIRECTORIES = re.compile(
    rf"({layout.OWN}|{layout.EARLIER_STAGING})(-[0-9a-f]{{12}})?"
    rf"|{layout.FAILURES}|{layout.UNCHANGED}|{layout.DELETED}"
)


@dataclass(frozen=True)
class Shard:
    """A data file of an earlier run with that run's manifest, if any; size and version come from the listing."""

    path: str
    manifest: dict[str, Any] | None
    size: int | None = None
    version: str | None = None


@dataclass(frozen=True)
class EarlierOutputs:
    """The outputs that match the patterns.

    Attributes:
      shards: data files in order of their paths; of an output with a manifest, only those that it names.
      manifests: manifests of these outputs, by directory.
    """

    shards: tuple[Shard, ...] = ()
    manifests: dict[str, dict[str, Any]] = field(default_factory=dict)

    def files(self, kind: str) -> Iterator[tuple[str, dict[str, Any]]]:
        """The files of a kind that the manifests name, each with its manifest."""
        for directory, manifest in self.manifests.items():
            for file in manifest["files"]:
                if file["kind"] == kind:
                    yield below(directory, file["name"]), manifest


def earlier_outputs(patterns: Iterable[str], output: str) -> EarlierOutputs:
    """Finds earlier outputs; a pattern may match nothing.

    Args:
      patterns: directories, or globs of directories or shards.
      output: this run's own output, which does not count, since it is replaced.

    Raises:
      UsageError: a pattern or a manifest cannot be read.
    """
    shards: dict[str, Shard] = {}
    manifests: dict[str, dict[str, Any] | None] = {}
    for pattern in patterns:
        for shard in _shards(pattern, output, manifests):
            shards[shard.path] = shard
    known = {directory: manifest for directory, manifest in manifests.items() if manifest is not None}
    return EarlierOutputs(tuple(shards[path] for path in sorted(shards)), dict(sorted(known.items())))


def _shards(pattern: str, output: str, manifests: dict[str, dict[str, Any] | None]) -> Iterator[Shard]:
    try:
        pattern = storage.absolute(pattern)
        matched = list(storage.match(pattern))
        if not pattern.endswith("/") and not pattern.endswith(_ENDINGS):
            # A glob of directories, such as `labels/dt=*`, matches no file itself.
            matched += storage.match(pattern + "/**")
    except (OSError, ValueError) as error:
        if not is_user_error(error):
            raise
        raise UsageError(f"--skip_labeled {pattern!r}: {error}") from error
    own, start = RealDirectory(output), fixed_start(pattern)
    names: dict[str, set[str]] = {}
    are_own: dict[str, bool] = {}
    for file in matched:
        path = file.path
        directory, _, name = path.rpartition("/")
        parts = directory[len(start) :].split("/")
        if name.startswith(("_", ".")) or any(map(_OWN_DIRECTORIES.fullmatch, parts)):
            continue
        if not name.endswith(_ENDINGS):
            continue
        if directory not in are_own:
            are_own[directory] = own.is_same(directory)
        if are_own[directory]:
            continue
        if directory not in manifests:
            manifests[directory] = _manifest(directory)
        manifest = manifests[directory]
        if directory not in names:
            names[directory] = {one["name"] for one in manifest["files"]} if manifest else set()
        if manifest is None or name in names[directory]:
            yield Shard(path, manifest, file.size, file.version)


def _manifest(directory: str) -> dict[str, Any] | None:
    try:
        path = storage.join(directory, layout.MANIFEST)
        return parse_result(path, storage.read_bytes(path))
    except (FileNotFoundError, IsADirectoryError):
        return None
    except DamagedError as error:
        raise UsageError(f"--skip_labeled: {error}: repair it or remove its directory") from error
    except (OSError, ValueError) as error:
        if not is_user_error(error):
            raise
        raise UsageError(f"--skip_labeled: {directory}/{layout.MANIFEST}: {error}") from error
