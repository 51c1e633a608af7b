"""Reads the rows of earlier shards as events, batch by batch and only the columns needed."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from beamlabel.pipeline.earlier import events
from beamlabel.pipeline.earlier.outputs import Shard
from beamlabel.pipeline.earlier.wanted import Wanted
from beamlabel.pipeline.output.manifest import dated
from beamlabel.transforms import storage
from beamlabel.transforms.inputs.parquet_source import open_parquet
from beamlabel.transforms.inputs.selection import stat_hash, unsure_identity
from beamlabel.transforms.rows import metadata_keys, schema, tf_examples
from beamlabel.transforms.rows.feature_places import feature_columns
from beamlabel.transforms.rows.metadata_keys import (
    EMBEDDING_DIM,
    LABELS_SHA256,
    MODULE_FINGERPRINT,
    PREPROCESSING_ID,
    TOP_K,
)
from beamlabel.transforms.rows.schema import OutputSpec, arrow_schema
from beamlabel.transforms.rows.tfrecord import read_records
from beamlabel.transforms.storage.identity import image_id
from beamlabel.transforms.storage.uris import resolve, scheme

_BATCH_ROWS = 16_384
# Records come with their embeddings, which cannot be left out, so batches are smaller.
_EXAMPLES = 512
_STAT = ("source_bytes", "source_version")


@dataclass(frozen=True)
class _Rows:
    """Consecutive rows of a shard.

    Attributes:
      identities: ``image_id``s; None if unknown.
      at: times of labeling, int64[N] in microseconds since 1970.
      same: whether this run would write them again, bool[N].
      features: whether they have the features that this run would compute, bool[N].
      stats: size and version of each; None if not requested.
      contents: ``content_hash`` of each; None if not requested or missing.
    """

    identities: list[str | None]
    at: np.ndarray
    same: np.ndarray
    features: np.ndarray
    stats: list[tuple[int | None, str | None]] | None = None
    contents: list[str | None] | None = None


@dataclass
class RowCounts:
    """Numbers of rows that count as labeled, and of rows whose image is unknown."""

    same: int = 0
    unresolved: int = 0


def row_events(
    shard: Shard, number: int, wanted: Wanted, counts: RowCounts, *, contents: bool = False
) -> Iterator[np.ndarray]:
    """Yields the rows of a shard as ``EVENT``s, a batch at a time.

    Args:
      shard: the shard.
      number: number of the shard in the events.
      wanted: the rows that this run would write.
      counts: is increased by the rows.
      contents: whether size, version and content of each image are needed.

    Raises:
      ValueError: the shard is damaged, or TFRecords lack a manifest.
      OSError: it cannot be read.
      ImportError: see ``tf_examples.check_installed``.
    """
    read = _parquet_rows if shard.path.endswith(".parquet") else _tfrecord_rows
    of_input = wanted.tombstones and wanted.is_of_input(shard.manifest)
    first = 0
    for rows in read(shard, wanted, contents):
        known = [place for place, identity in enumerate(rows.identities) if identity is not None]
        made = np.zeros(len(known), events.EVENT)
        ids = events.ids_of([rows.identities[place] or "" for place in known])
        made["high"], made["low"] = ids[:, 0], ids[:, 1]
        made["at"] = rows.at[known]
        made["shard"], made["row"] = number, np.asarray(known, np.uint32) + first
        made["kind"] = np.where(rows.same[known], events.SAME_ROW, events.OTHER_ROW)
        made["of_input"], made["features"] = of_input, rows.features[known]
        if rows.stats is not None:
            made["stat"] = [stat_hash(*rows.stats[place]) for place in known]
        if rows.contents is not None:
            made["content"] = events.contents_of([rows.contents[place] for place in known])
        counts.same += int(rows.same[known].sum())
        counts.unresolved += int(rows.same.sum()) - int(rows.same[known].sum())
        first += len(rows.identities)
        yield made


def _parquet_rows(shard: Shard, wanted: Wanted, contents: bool) -> Iterator[_Rows]:
    with open_parquet(shard.path) as file:
        there = set(file.schema_arrow.names)
        identity = "image_id" if "image_id" in there else "uri"
        metadata = _metadata(file.schema_arrow)
        has_columns = _has_columns(file.schema_arrow, wanted.spec)
        has_columns = has_columns and wanted.takes_outputs_of(metadata, shard.manifest)
        features = _has_features(metadata, shard, wanted) and _has_embeddings(file.schema_arrow, wanted)
        if not {identity, "module_fingerprint", "preprocessing_id"} <= there:
            return  # not an output of beamlabel
        if not has_columns and not features and not wanted.tombstones:
            return
        compared = (*_STAT, "content_hash") if contents else ()
        columns = [identity, "module_fingerprint", "preprocessing_id", "labeled_at", *compared]
        columns = [name for name in columns if name in there]
        for batch in file.iter_batches(_BATCH_ROWS, columns=columns):
            same = _is_by(batch, wanted.spec.module_fingerprint, wanted.spec.preprocessing_id)
            # The metadata describes only rows of the module that it names.
            of_metadata = features and _is_by(
                batch, metadata.get(MODULE_FINGERPRINT), metadata.get(PREPROCESSING_ID)
            )
            found = batch.column(identity).to_pylist()
            if identity == "uri":
                found = [version_1_identity(uri, shard.manifest) for uri in found]
            yield _Rows(
                found,
                _labeled_at(batch, shard.manifest),
                same & has_columns,
                np.full(batch.num_rows, False) | of_metadata,
                _stats(batch) if contents else None,
                batch.column("content_hash").to_pylist() if "content_hash" in columns else None,
            )


def _is_by(batch: pa.RecordBatch, fingerprint: str | None, preprocessing_id: str | None) -> np.ndarray:
    """Whether each row was made by this module and preprocessing: bool[N]."""
    found = pc.and_(
        pc.equal(batch.column("module_fingerprint"), pa.scalar(fingerprint, pa.string())),
        pc.equal(batch.column("preprocessing_id"), pa.scalar(preprocessing_id, pa.string())),
    )
    return np.asarray(pc.fill_null(found, False).to_numpy(zero_copy_only=False), bool)


def _has_features(metadata: Mapping[str, str], shard: Shard, wanted: Wanted) -> bool:
    return wanted.features is not None and wanted.features.are_of(metadata, shard.manifest)


def _has_embeddings(there: pa.Schema, wanted: Wanted) -> bool:
    """Whether a shard has all columns needed to label a row again from its features."""
    assert wanted.features is not None
    columns = feature_columns(wanted.features.dimension)
    return all(
        field.name in there.names and there.field(field.name).type.equals(field.type) for field in columns
    )


def _labeled_at(batch: pa.RecordBatch, manifest: Mapping[str, Any] | None) -> np.ndarray:
    if "labeled_at" not in batch.schema.names:
        return np.full(batch.num_rows, 0 if manifest is None else dated(manifest))
    return batch.column("labeled_at").cast(pa.int64()).to_numpy()


def _stats(batch: pa.RecordBatch) -> list[tuple[int | None, str | None]]:
    return list(zip(*(batch.column(name).to_pylist() for name in _STAT), strict=True))


def version_1_identity(uri: str, manifest: Mapping[str, Any] | None) -> str | None:
    """The ``image_id`` of a row of schema version 1, which has only ``uri``; None if that does not determine it.

    Args:
      uri: URI of the row.
      manifest: manifest of its run; None if there is none.
    """
    options = manifest["options"] if manifest else {}
    if options.get("image_column"):
        return None  # the bytes of an inline image are not kept
    if scheme(uri) is None and not uri.startswith("/") and not options.get("base_dir"):
        return None
    location = resolve(uri, options.get("base_dir") or "/")
    return unsure_identity(location) or image_id(location)


def _has_columns(there: pa.Schema, spec: OutputSpec) -> bool:
    """Whether a shard has everything that this run needs: the columns, the same ``top_k`` and the same class names."""
    wanted, metadata = arrow_schema(spec), _metadata(there)
    names = set(wanted.names) - (
        schema.SINCE_VERSION_2 if metadata.get(metadata_keys.SCHEMA_VERSION) == "1" else set()
    )
    return all(
        name in there.names and there.field(name).type == wanted.field(name).type for name in names
    ) and _same(metadata, spec, LABELS_SHA256, TOP_K)


def _metadata(there: pa.Schema) -> dict[str, str]:
    return {name.decode(): value.decode() for name, value in (there.metadata or {}).items()}


def _tfrecord_rows(shard: Shard, wanted: Wanted, contents: bool) -> Iterator[_Rows]:
    """Reads TFRecords; module, preprocessing and columns are those of the whole file, as its manifest says."""
    if shard.manifest is None:
        raise ValueError(f"{shard.path}: TFRecords without their _MANIFEST.json beside them cannot be used")
    metadata, spec = shard.manifest["metadata"], wanted.spec
    # If a manifest lacks their types, kept columns have the names of the input.
    there = shard.manifest.get("kept_columns") or dict.fromkeys(shard.manifest["options"]["keep_columns"])
    is_same = (
        _same(metadata, spec, MODULE_FINGERPRINT, PREPROCESSING_ID, LABELS_SHA256, TOP_K)
        and (spec.embedding_dim is None or _same(metadata, spec, EMBEDDING_DIM))
        and all(there.get(name, name) in (None, str(kind)) for name, kind in spec.kept_fields)
        and wanted.takes_outputs_of(metadata, shard.manifest)
    )
    features = _has_features(metadata, shard, wanted)
    if not is_same and not features and not wanted.tombstones:
        return
    is_version_1 = metadata.get(metadata_keys.SCHEMA_VERSION) == "1"
    identity = "uri" if is_version_1 else "image_id"
    names = (identity, "labeled_at", *((*_STAT, "content_hash") if contents else ()))
    began = dated(shard.manifest)
    for rows in read_examples(shard.path, names):
        found = [str(row[identity]) for row in rows]
        at = [row["labeled_at"] for row in rows]
        yield _Rows(
            [version_1_identity(uri, shard.manifest) for uri in found] if is_version_1 else list(found),
            np.array([began if value is None else int(value) for value in at], np.int64),
            np.full(len(rows), is_same),
            np.full(len(rows), features),
            [(row["source_bytes"], row["source_version"]) for row in rows] if contents else None,
            [row["content_hash"] for row in rows] if contents else None,
        )


def read_examples(path: str, names: Sequence[str]) -> Iterator[list[dict[str, Any]]]:
    """Yields the rows of a TFRecord shard in chunks, with these features; None for a missing one."""
    with storage.open_input(path) as file:
        records = read_records(file)
        while chunk := list(itertools.islice(records, _EXAMPLES)):
            rows = tf_examples.decode(chunk, names)
            yield [{name: _first(row.get(name)) for name in names} for row in rows]


def _first(values: list[Any] | None) -> Any:
    """The only value of a feature; None if it has none."""
    value = values[0] if values else None
    return value.decode() if isinstance(value, bytes) else value


def _same(metadata: Mapping[str, str], spec: OutputSpec, *names: str) -> bool:
    return all(metadata.get(name) == spec.metadata.get(name) for name in names)
