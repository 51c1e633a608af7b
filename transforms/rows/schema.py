"""The Arrow schema of output rows, for both output formats."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import pyarrow as pa

from beamlabel.transforms.rows.metadata_keys import (
    EMBEDDING_DIM,
    ENGINE,
    LABELS_SHA256,
    NUM_CLASSES,
    PRECISION,
)
from beamlabel.transforms.rows.tf_examples import example_type
from beamlabel.transforms.rows.types import list_of, normalized_type

FORMATS = ("parquet", "tfrecord")
COMPRESSIONS = ("none", "gzip")
# The advice to the command's user; a transform replaces it with its own.
RENAMING = "with --keep_columns SOURCE=NAME"

# The value of SCHEMA_VERSION: changes when a column changes its name, its type or its meaning.
CURRENT_SCHEMA_VERSION = "2"

# All columns that an output may have besides kept columns; see ``own_columns``.
OWN_COLUMNS = (
    "uri", "ref_id", "image_id", "label", "score", "labels", "class_ids", "scores", "embedding", "width", "height",
    "format", "source_bytes", "source_version", "content_hash", "module_handle", "module_fingerprint",
    "preprocessing_id", "labeled_at",
)  # fmt: skip

# The columns of these that rows of version 1 lack.
SINCE_VERSION_2 = frozenset({"image_id", "content_hash", "module_handle", "labeled_at"})


_OF_LABELS = frozenset({"label", "labels"})
_OF_CLASSES = frozenset({"score", "class_ids", "scores"})
_OF_EMBEDDINGS = frozenset({"embedding"})


def own_columns(*, has_labels: bool, has_classes: bool, has_embeddings: bool) -> frozenset[str]:
    """The names of an output's own columns; any other name is free for a kept column."""
    absent = frozenset() if has_labels else _OF_LABELS
    absent |= frozenset() if has_classes else _OF_CLASSES
    absent |= frozenset() if has_embeddings else _OF_EMBEDDINGS
    return frozenset(OWN_COLUMNS) - absent


def own_columns_by_metadata(metadata: Mapping[str, str]) -> frozenset[str]:
    """The names of a result's own columns, by the file metadata of its shards."""
    return own_columns(
        has_labels=LABELS_SHA256 in metadata,
        has_classes=NUM_CLASSES in metadata,
        has_embeddings=EMBEDDING_DIM in metadata,
    )


@dataclass(frozen=True)
class OutputSpec:
    """The specification of the sink's output; created by the launcher, and sent to every worker.

    Attributes:
      format: ``parquet`` or ``tfrecord``.
      compression: of a TFRecord file, ``none`` or ``gzip``; Parquet is always zstd.
      kept_fields: name and type of each kept column, in the order of ``ImageRef.passthrough``; types from
        ``normalized_type``.
      has_labels: whether the classes have names.
      top_k: number of classes in a row.
      num_classes: None if the module has no logits: no class columns.
      embedding_dim: None without embeddings.
      module_handle, module_fingerprint, preprocessing_id: the same in every row.
      labeled_at: start of the run that computes the rows, in microseconds since 1970, UTC. The plan's name does not
        depend on it.
      metadata: file metadata, ``beamlabel.*``; engine and precision are the planned ones, while a shard names those
        that made it.
    """

    format: str = "parquet"
    compression: str = "none"
    kept_fields: tuple[tuple[str, pa.DataType], ...] = ()
    has_labels: bool = False
    top_k: int = 0
    num_classes: int | None = None
    embedding_dim: int | None = None
    module_handle: str = ""
    module_fingerprint: str = ""
    preprocessing_id: str = ""
    labeled_at: int = 0
    metadata: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.format not in FORMATS:
            raise ValueError(f"format must be {' or '.join(FORMATS)}, not {self.format!r}")
        if self.compression not in COMPRESSIONS:
            raise ValueError(f"compression must be {' or '.join(COMPRESSIONS)}, not {self.compression!r}")
        if self.compression != "none" and self.format != "tfrecord":
            raise ValueError(f"compression {self.compression!r} needs format tfrecord, not {self.format}")
        if self.num_classes is not None and not 1 <= self.top_k <= self.num_classes:
            raise ValueError(
                f"top_k must be from 1 to the number of classes, {self.num_classes}, not {self.top_k}"
            )
        if self.num_classes is None and (self.has_labels or self.top_k):
            raise ValueError("labels and top_k need classes, but num_classes is None")
        if self.embedding_dim is not None and self.embedding_dim < 1:
            raise ValueError(f"embedding_dim must be at least 1, not {self.embedding_dim}")
        own = own_columns(
            has_labels=self.has_labels,
            has_classes=self.num_classes is not None,
            has_embeddings=self.embedding_dim is not None,
        )
        check_kept(self.kept_fields, self.format, own)

    @property
    def file_ending(self) -> str:
        """``parquet``, ``tfrecord`` or ``tfrecord.gz``."""
        return self.format + (".gz" if self.compression == "gzip" else "")


def arrow_schema(spec: OutputSpec) -> pa.Schema:
    """The schema of a data shard with its metadata; columns that the module cannot fill are absent."""
    text, number, score = pa.string(), pa.int32(), pa.float32()
    fields = [_required("uri", text), _required("ref_id", text)]
    fields += [pa.field(name, kind) for name, kind in spec.kept_fields]
    fields += [_required("image_id", text)]
    if spec.num_classes is not None:
        fields += [_required("label", text)] if spec.has_labels else []
        fields += [_required("score", score)]
        fields += [_required("labels", list_of(text))] if spec.has_labels else []
        fields += [_required("class_ids", list_of(number)), _required("scores", list_of(score))]
    if spec.embedding_dim is not None:
        fields += [_required("embedding", pa.list_(pa.field("element", score), spec.embedding_dim))]
    fields += [_required("width", number), _required("height", number), _required("format", text)]
    fields += [_required("source_bytes", pa.int64()), pa.field("source_version", text)]
    fields += [_required("content_hash", text), _required("module_handle", text)]
    fields += [_required("module_fingerprint", text), _required("preprocessing_id", text)]
    fields += [_required("labeled_at", pa.timestamp("us", "UTC"))]
    return pa.schema(fields, metadata=spec.metadata)


def computed_metadata(metadata: Mapping[str, str], computed_by: Sequence[str]) -> dict[str, str]:
    """The metadata of a shard, with the engine and precision that made its rows.

    Args:
      metadata: as planned.
      computed_by: names from ``engines.Engine``, such as ``litert float32``; none: as planned.
    """
    if not computed_by:
        return dict(metadata)
    names, precisions = zip(*(text.split(" ") for text in computed_by), strict=True)
    return {**metadata, ENGINE: ", ".join(names), PRECISION: ", ".join(precisions)}


def check_kept(
    fields: Sequence[tuple[str, pa.DataType]], output_format: str, own: frozenset[str] | None = None
) -> None:
    """Checks that the output can hold the kept columns.

    Args:
      fields: name and type of each.
      output_format: ``parquet`` or ``tfrecord``.
      own: the output's own columns; None: those of every output.

    Raises:
      ValueError: A column has the name of an own column or of another kept column, or a type without a counterpart in
        tf.Example; the message names it. Case is ignored, as in DuckDB and Spark.
    """
    if own is None:
        own = own_columns(has_labels=False, has_classes=False, has_embeddings=False)
    seen: set[str] = set()
    for name, kind in fields:
        if name.lower() in own:
            raise ValueError(
                f"kept column {name!r}: the output has its own column of this name; rename the kept column {RENAMING}"
            )
        if name.lower() in seen:
            raise ValueError(f"kept column {name!r}: named twice; rename one {RENAMING}")
        seen.add(name.lower())
        if output_format == "tfrecord" and example_type(normalized_type(kind)) is None:
            raise ValueError(
                f"kept column {name!r}: tf.Example has no counterpart of {kind}; drop the column or write Parquet"
            )


def _required(name: str, kind: pa.DataType) -> pa.Field:
    return pa.field(name, kind, nullable=False)
