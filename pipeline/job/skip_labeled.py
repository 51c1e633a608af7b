"""What earlier runs have labeled: streamed into an index of keys, for ``OpenUnit`` to ask.

Only the columns that tell are read, batch by batch, so that memory does not depend on the number of rows.
"""

from __future__ import annotations

import hashlib
import itertools
import logging
import os
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from beamlabel.pipeline import layout
from beamlabel.pipeline.errors import UsageError
from beamlabel.pipeline.output.manifest import read_manifest
from beamlabel.transforms import storage
from beamlabel.transforms.inputs.key_index import KeyIndexWriter
from beamlabel.transforms.inputs.parquet_source import open_parquet
from beamlabel.transforms.inputs.selection import labeled_key, unsure_identity
from beamlabel.transforms.rows import schema, tf_examples
from beamlabel.transforms.rows.schema import (
    EMBEDDING_DIM,
    LABELS_SHA256,
    MODULE_FINGERPRINT,
    PREPROCESSING_ID,
    TOP_K,
    OutputSpec,
    arrow_schema,
)
from beamlabel.transforms.rows.tfrecord import read_records
from beamlabel.transforms.storage.errors import is_user_error
from beamlabel.transforms.storage.identity import image_id
from beamlabel.transforms.storage.patterns import fixed_start
from beamlabel.transforms.storage.uris import resolve, scheme

# Each holds a batch: this bounds the memory.
_THREADS = 8
_BATCH_ROWS = 16_384
# With their embeddings, which cannot be left out.
_EXAMPLES = 512
_ENDINGS = (".parquet", ".tfrecord", ".tfrecord.gz")
# Folders of ours that hold no published shards; the second is that of schema version 1.
_OWN_FOLDERS = re.compile(rf"({layout.OWN}|{layout.EARLIER_STAGING})(-[0-9a-f]{{12}})?|{layout.FAILURES}")
_FACTS = ("source_bytes", "source_version")
_HASH_BLOCK_BYTES = 1 << 20

_LOGGER = logging.getLogger("beamlabel")


@dataclass(frozen=True)
class LocalIndex:
    """An index of keys that is not staged yet.

    Attributes:
      path: on this machine.
      sha256: of the file, in hex.
      keys: how many it holds.
    """

    path: Path
    sha256: str
    keys: int


def labeled_index(
    patterns: Sequence[str], spec: OutputSpec, output: str, *, changed: bool, folder: Path
) -> LocalIndex:
    """Gathers the rows of earlier outputs that this run would write again.

    Those are the rows of the same module and preprocessing, in shards with all the columns that are asked for now.

    Args:
      patterns: earlier outputs: folders, or globs of folders or shards. What matches nothing counts as nothing yet.
      spec: of the rows that are asked for.
      output: this run's own, whose rows do not count, since it replaces them.
      changed: whether the keys hold size and version of the images.
      folder: where the index is made.

    Raises:
      UsageError: a pattern or a shard cannot be read.
    """
    begin = time.monotonic()
    shards = {shard.path: shard for pattern in patterns for shard in _shards(pattern, output)}
    with KeyIndexWriter(folder) as writer:

        def gather(shard: _Shard) -> tuple[int, int]:
            rows = unresolved = 0
            for identities, facts in _identities(shard, spec, _FACTS if changed else ()):
                known = [place for place, identity in enumerate(identities) if identity is not None]
                writer.add(
                    labeled_key(
                        identities[place] or "", (facts[0][place], facts[1][place]) if changed else None
                    )
                    for place in known
                )
                rows += len(known)
                unresolved += len(identities) - len(known)
            return rows, unresolved

        try:
            with ThreadPoolExecutor(_THREADS) as threads:
                counts = list(threads.map(gather, shards.values()))
        except (OSError, ValueError, ImportError) as error:
            if not is_user_error(error):
                raise
            raise UsageError(f"--skip_labeled: {error}") from error
        index = write_index(writer, folder / "labeled")
    rows, unresolved = (sum(count[place] for count in counts) for place in (0, 1))
    _LOGGER.info(
        "Skipping %d images that earlier runs labeled (%d rows in %d shards, read in %.1f s)",
        index.keys, rows, len(shards), time.monotonic() - begin,
    )  # fmt: skip
    if unresolved:
        _LOGGER.warning(
            "%d rows of schema version 1 do not tell which images they are of (inline images, or relative names "
            "without a manifest); these images are not skipped",
            unresolved,
        )
    return index


@dataclass(frozen=True)
class _Shard:
    """A data file of an earlier run, and that run's manifest, if there is one."""

    path: str
    manifest: dict[str, Any] | None


def _shards(pattern: str, output: str) -> Iterator[_Shard]:
    """Data files of the outputs that a pattern names: of an output with a manifest, those that it names."""
    try:
        pattern = storage.absolute(pattern)
        matched = [file.path for file in storage.match(pattern)]
        if not pattern.endswith("/") and not pattern.endswith(_ENDINGS):
            # A glob of folders, such as `labels/dt=*`, matches no file itself.
            matched += [file.path for file in storage.match(pattern + "/**")]
    except (OSError, ValueError) as error:
        if not is_user_error(error):
            raise
        raise UsageError(f"--skip_labeled {pattern!r}: {error}") from error
    own, start = _place(output), fixed_start(pattern)
    manifests: dict[str, tuple[dict[str, Any] | None, set[str]]] = {}
    for path in matched:
        folder, _, name = path.rpartition("/")
        below = folder[len(start) :].split("/")
        if name.startswith(("_", ".")) or any(map(_OWN_FOLDERS.fullmatch, below)) or _place(folder) == own:
            continue
        if not name.endswith(_ENDINGS):
            continue
        if folder not in manifests:
            manifest = _manifest(folder)
            manifests[folder] = manifest, {file["name"] for file in manifest["files"]} if manifest else set()
        manifest, names = manifests[folder]
        if manifest is None or name in names:
            yield _Shard(path, manifest)


def _place(folder: str) -> str:
    """What a folder is called by nobody's links."""
    return os.path.realpath(folder) if storage.is_local(folder) else folder


def _manifest(folder: str) -> dict[str, Any] | None:
    try:
        return read_manifest(folder)
    except (OSError, ValueError) as error:
        if not is_user_error(error):
            raise
        raise UsageError(f"--skip_labeled: {folder}/{layout.MANIFEST}: {error}") from error


_Columns = Iterator[tuple[list[str | None], list[list[Any]]]]


def _identities(shard: _Shard, spec: OutputSpec, facts: Sequence[str]) -> _Columns:
    """Identities and facts of the rows that count, as columns, a batch at a time; None for an identity nobody knows."""
    rows = _parquet_rows if shard.path.endswith(".parquet") else _tfrecord_rows
    yield from rows(shard, spec, facts)


def _parquet_rows(shard: _Shard, spec: OutputSpec, facts: Sequence[str]) -> _Columns:
    """See ``_identities``."""
    with open_parquet(shard.path) as file:
        there = file.schema_arrow
        if not _has_columns(there, spec):
            return
        identity = "image_id" if "image_id" in there.names else "uri"
        columns = [identity, "module_fingerprint", "preprocessing_id", *facts]
        for batch in file.iter_batches(_BATCH_ROWS, columns=columns):
            same = pc.and_(
                pc.equal(batch.column("module_fingerprint"), spec.module_fingerprint),
                pc.equal(batch.column("preprocessing_id"), spec.preprocessing_id),
            )
            rows = batch.filter(same)
            found = rows.column(identity).to_pylist()
            known = (
                found
                if identity == "image_id"
                else [version_1_identity(uri, shard.manifest) for uri in found]
            )
            yield known, [rows.column(name).to_pylist() for name in facts]


def version_1_identity(uri: str, manifest: Mapping[str, Any] | None) -> str | None:
    """The ``image_id`` of a row of schema version 1, which has only ``uri``; None if that does not tell it.

    Args:
      uri: of the row.
      manifest: of the row's run; None if there is none.
    """
    options = manifest["options"] if manifest else {}
    if options.get("image_column"):
        return None  # of an inline image, whose bytes nobody has any more
    if scheme(uri) is None and not uri.startswith("/") and not options.get("base_dir"):
        return None
    location = resolve(uri, options.get("base_dir") or "/")
    return unsure_identity(location) or image_id(location)


def _has_columns(there: pa.Schema, spec: OutputSpec) -> bool:
    """Whether a shard has all that is asked for: the columns, as many classes a row, and the same names of them."""
    wanted = arrow_schema(spec)
    metadata = {name.decode(): value.decode() for name, value in (there.metadata or {}).items()}
    names = set(wanted.names) - (
        schema.SINCE_VERSION_2 if metadata.get(schema.SCHEMA_VERSION) == "1" else set()
    )
    return all(
        name in there.names and there.field(name).type == wanted.field(name).type for name in names
    ) and _same(metadata, spec, LABELS_SHA256, TOP_K)


def _tfrecord_rows(shard: _Shard, spec: OutputSpec, facts: Sequence[str]) -> _Columns:
    """See ``_identities``. Module, preprocessing and columns are those of the whole file, by its manifest.

    Raises:
      ValueError: there is no manifest, or the file is damaged.
      ImportError: see ``tf_examples.check_installed``.
    """
    if shard.manifest is None:
        raise ValueError(f"{shard.path}: TFRecords count only beside the _MANIFEST.json that describes them")
    metadata = shard.manifest["metadata"]
    # By a manifest that does not tell their types, they had the names of the input.
    there = shard.manifest.get("kept_columns") or dict.fromkeys(shard.manifest["options"]["keep_columns"])
    kept = all(there.get(name, name) in (None, str(kind)) for name, kind in spec.kept_fields)
    if not (
        _same(metadata, spec, MODULE_FINGERPRINT, PREPROCESSING_ID, LABELS_SHA256, TOP_K)
        and (spec.embedding_dim is None or _same(metadata, spec, EMBEDDING_DIM))
        and kept
    ):
        return
    is_version_1 = metadata.get(schema.SCHEMA_VERSION) == "1"
    identity = "uri" if is_version_1 else "image_id"
    with storage.open_input(shard.path) as file:
        records = read_records(file)
        while chunk := list(itertools.islice(records, _EXAMPLES)):
            rows = tf_examples.decode(chunk, (identity, *facts))
            values = [[_first(row.get(name)) for row in rows] for name in facts]
            found = [str(_first(row[identity])) for row in rows]
            yield [version_1_identity(uri, shard.manifest) if is_version_1 else uri for uri in found], values


def _first(values: list[Any] | None) -> Any:
    """The value of a feature that holds one or none."""
    value = values[0] if values else None
    return value.decode() if isinstance(value, bytes) else value


def _same(metadata: Mapping[str, str], spec: OutputSpec, *names: str) -> bool:
    return all(metadata.get(name) == spec.metadata.get(name) for name in names)


def write_index(writer: KeyIndexWriter, path: Path) -> LocalIndex:
    """Writes the index of a writer."""
    keys = writer.finish(path)
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(_HASH_BLOCK_BYTES):
            digest.update(block)
    return LocalIndex(path, digest.hexdigest(), keys)
