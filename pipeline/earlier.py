"""What earlier runs have labeled: streamed into an index of keys, for ``OpenUnit`` to ask.

Only the columns that tell are read, batch by batch, so that memory does not depend on the number of rows.
"""

from __future__ import annotations

import hashlib
import logging
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from pipeline import layout
from pipeline.options import UsageError
from pipeline.publish import read_manifest
from transforms import storage
from transforms.key_index import KeyIndexWriter
from transforms.output_schema import LABELS_SHA256, TOP_K, OutputSpec, arrow_schema
from transforms.parquet_source import open_parquet
from transforms.selection import labeled_key

# Each holds a batch: this bounds the memory.
_THREADS = 8
_BATCH_ROWS = 16_384
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
    shards = [shard for pattern in patterns for shard in _shards(pattern, output)]
    with KeyIndexWriter(folder) as writer:

        def gather(shard: str) -> int:
            found = 0
            for keys in _labeled_keys(shard, spec, changed=changed):
                writer.add(keys)
                found += len(keys)
            return found

        try:
            with ThreadPoolExecutor(_THREADS) as threads:
                rows = sum(threads.map(gather, dict.fromkeys(shards)))
        except (OSError, ValueError) as error:
            raise UsageError(f"--skip_labeled: {error}") from error
        index = finished(writer, folder / "labeled")
    _LOGGER.info(
        "%d of the images are labeled already, by %d rows in %d shards of earlier runs (%.1f s)",
        index.keys, rows, len(shards), time.monotonic() - begin,
    )  # fmt: skip
    return index


def _shards(pattern: str, output: str) -> Iterator[str]:
    """Data files of the outputs that a pattern names: of an output with a manifest, those that it names."""
    try:
        pattern = storage.absolute(pattern)
        matched = [file.path for file in storage.match(pattern)]
        if not pattern.endswith(("/", ".parquet")):
            # A glob of folders, such as `labels/dt=*`, matches no file itself.
            matched += [file.path for file in storage.match(pattern + "/**")]
    except (OSError, ValueError) as error:
        raise UsageError(f"--skip_labeled {pattern!r}: {error}") from error
    named: dict[str, set[str] | None] = {}
    for path in matched:
        folder, _, name = path.rpartition("/")
        if name.startswith(("_", ".")) or f"/{layout.STAGING}" in folder or folder == output:
            continue
        if name.endswith((".tfrecord", ".tfrecord.gz")):
            raise UsageError(
                f"--skip_labeled {pattern!r}: {path} holds TFRecords; earlier rows are read of Parquet only"
            )
        if not name.endswith(".parquet"):
            continue
        if folder not in named:
            manifest = read_manifest(folder)
            named[folder] = None if manifest is None else {file["name"] for file in manifest["files"]}
        names = named[folder]
        if names is None or name in names:
            yield path


def _labeled_keys(shard: str, spec: OutputSpec, *, changed: bool) -> Iterator[list[bytes]]:
    facts = ("source_bytes", "source_version") if changed else ()
    with open_parquet(shard) as file:
        if not _has_columns(file.schema_arrow, spec):
            return
        columns = ["uri", "module_fingerprint", "preprocessing_id", *facts]
        for batch in file.iter_batches(_BATCH_ROWS, columns=columns):
            same = pc.and_(
                pc.equal(batch.column("module_fingerprint"), spec.module_fingerprint),
                pc.equal(batch.column("preprocessing_id"), spec.preprocessing_id),
            )
            rows = batch.filter(same)
            uris = rows.column("uri").to_pylist()
            if changed:
                known = zip(*(rows.column(name).to_pylist() for name in facts), strict=True)
                yield [labeled_key(uri, fact) for uri, fact in zip(uris, known, strict=True)]
            else:
                yield [labeled_key(uri) for uri in uris]


def _has_columns(there: pa.Schema, spec: OutputSpec) -> bool:
    """Whether a shard has all that is asked for: the columns, as many classes a row, and the same names of them."""
    wanted = arrow_schema(spec)
    facts = {name.decode(): value.decode() for name, value in (there.metadata or {}).items()}
    return all(
        name in there.names and there.field(name).type == wanted.field(name).type for name in wanted.names
    ) and all(facts.get(name) == spec.metadata.get(name) for name in (LABELS_SHA256, TOP_K))


def finished(writer: KeyIndexWriter, path: Path) -> LocalIndex:
    """Writes the index of a writer."""
    keys = writer.finish(path)
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(_HASH_BLOCK_BYTES):
            digest.update(block)
    return LocalIndex(path, digest.hexdigest(), keys)
