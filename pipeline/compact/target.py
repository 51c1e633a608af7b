"""The columns and the module of the newest output, and a check whether other files match them."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import pyarrow as pa

from beamlabel.pipeline.current.entries import has_identity
from beamlabel.pipeline.current.outputs import Output
from beamlabel.pipeline.earlier.chosen_outputs import ChosenOutputs
from beamlabel.pipeline.errors import UsageError
from beamlabel.pipeline.output.verify_files import spec_of
from beamlabel.transforms.inputs.parquet_source import open_parquet
from beamlabel.transforms.rows import metadata_keys, schema
from beamlabel.transforms.rows.schema import OutputSpec, arrow_schema

# Metadata that must agree, besides columns and types, for rows to fit into one output.
_SAME = (
    metadata_keys.MODULE_FINGERPRINT,
    metadata_keys.PREPROCESSING_ID,
    metadata_keys.SCORES,
    metadata_keys.LABELS_SHA256,
    metadata_keys.NUM_CLASSES,
    metadata_keys.TOP_K,
    metadata_keys.EMBEDDING_DIM,
    metadata_keys.EMBEDDING_NORMALIZED,
)


@dataclass(frozen=True)
class Target:
    """The properties of a current row.

    Attributes:
      output: the newest output that has a data file.
      is_tfrecord: whether its shards are TFRecords, whose rows are copied byte by byte.
      metadata: metadata of its shards, in the current schema version.
      columns: columns of its shards, in the current schema version; None for TFRecords.
    """

    output: Output
    is_tfrecord: bool
    metadata: dict[str, str]
    columns: pa.Schema | None

    def spec(self, metadata: Mapping[str, str]) -> OutputSpec:
        """The spec of shards with these columns: Parquet, or TFRecords with the newest output's compression."""
        if self.columns is not None:
            return replace(spec_of(self.columns, metadata), metadata=dict(metadata))
        zipped = any(str(file["name"]).endswith(".gz") for file in self.output.files("data"))
        return OutputSpec(
            format="tfrecord", compression="gzip" if zipped else "none", metadata=dict(metadata)
        )

    def fits(self, output: Output, file: Mapping[str, Any] | None) -> bool:
        """Whether a data file has the same columns, module and preprocessing; for failures only the manifest counts."""
        metadata = output.manifest["metadata"]
        if any(metadata.get(name) != self.metadata.get(name) for name in _SAME):
            return False
        chosen, newest = (ChosenOutputs.of_run(one.manifest) for one in (output, self.output))
        columns = {
            "classes": metadata_keys.NUM_CLASSES in metadata,
            "embeddings": metadata_keys.EMBEDDING_DIM in metadata,
        }
        if not chosen.agree(newest, **columns):
            return False
        if file is None:
            return True
        is_tfrecord = ".tfrecord" in str(file["name"])
        if is_tfrecord != self.is_tfrecord:
            return False
        if is_tfrecord:
            like = self.output.manifest
            return all(
                output.manifest.get(name) == like.get(name) for name in ("kept_columns", "schema_version")
            )
        there, is_version_1 = _shard_schema(output.path(str(file["name"])))
        assert self.columns is not None
        wanted = [c for c in self.columns if not (is_version_1 and c.name in schema.SINCE_VERSION_2)]
        return all(c.name in there.names and there.field(c.name).type == c.type for c in wanted)


def target_of(outputs: Sequence[Output]) -> Target:
    """The target given by the newest output; ``outputs`` are in the order of ``find_outputs``.

    Raises:
      UsageError: no output has a data file, or the newest has TFRecords of schema version 1.
      OSError, ValueError: the output cannot be read.
    """
    newest = next((output for output in reversed(outputs) if output.files("data")), None)
    if newest is None:
        raise UsageError("none of the outputs has a data file")
    file = newest.files("data")[0]
    metadata = {str(name): str(value) for name, value in newest.manifest["metadata"].items()}
    is_version_1 = metadata.get(metadata_keys.SCHEMA_VERSION) == "1"
    metadata[metadata_keys.SCHEMA_VERSION] = schema.CURRENT_SCHEMA_VERSION
    if ".tfrecord" in str(file["name"]):
        if is_version_1:
            raise UsageError(
                f"{newest.directory} has TFRecords of schema version 1, which do not identify their images: label them "
                "again"
            )
        return Target(newest, True, metadata, None)
    there, _ = _shard_schema(newest.path(str(file["name"])))
    return Target(newest, False, metadata, arrow_schema(spec_of(there, metadata)).remove_metadata())


@functools.lru_cache(maxsize=16)
def _shard_schema(path: str) -> tuple[pa.Schema, bool]:
    with open_parquet(path) as parquet:
        there = parquet.schema_arrow
    return there.remove_metadata(), not has_identity(there)
