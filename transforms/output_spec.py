"""Determines the columns of an output and the metadata of its files from a module and its options."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
from collections.abc import Mapping
from typing import Any

import pyarrow as pa

from beamlabel import __version__
from beamlabel.transforms.derive import Derived
from beamlabel.transforms.inference.artifact import Quantization
from beamlabel.transforms.rows import metadata_keys, schema
from beamlabel.transforms.rows.schema import OutputSpec
from beamlabel.transforms.storage.uris import public_uri

# Key in ``preprocessing_of`` for the module's quantization.
QUANTIZATION = "quantization"


def canonical_sha256(value: object) -> str:
    """SHA-256 of canonical JSON: sorted keys, no spaces, UTF-8; undecodable bytes of file names stay as they are."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, default=str)
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()


def labeled_at(started_at: float) -> int:
    """The value of the column ``labeled_at``: the start of the run, in microseconds since 1970, UTC.

    ``SOURCE_DATE_EPOCH``, in seconds since 1970, replaces it, so that two runs can write equal bytes; see
    https://reproducible-builds.org/specs/source-date-epoch/.

    Raises:
      ValueError: ``SOURCE_DATE_EPOCH`` is not an integer.
    """
    epoch = os.environ.get("SOURCE_DATE_EPOCH")
    if epoch is None:
        return round(started_at * 1e6)
    if not epoch.isdecimal():
        raise ValueError(f"SOURCE_DATE_EPOCH={epoch!r} is not a whole number of seconds since 1970")
    return int(epoch) * 1_000_000


def preprocessing_of(derived: Derived) -> dict[str, Any]:
    """All but the module that determines the numbers in a row; ``preprocessing_id`` is its ``canonical_sha256``."""
    spec, decode, predict = derived.spec, derived.decode, derived.predict
    # Only for int8, so that the ``preprocessing_id`` of other precisions stays the same as in earlier versions.
    quantized = {} if spec.quantization is None else {QUANTIZATION: _as_json(spec.quantization)}
    return {
        "height": spec.height,
        "width": spec.width,
        "crop": decode.crop,
        "color_profile": decode.color_profile,
        "resize": "bilinear",
        "input_range": list(spec.input_range),
        "precision": spec.precision,
        "scores": predict.scores if predict.top_k else None,
        "normalize_embeddings": predict.normalize_embeddings,
        "decoder": derived.decoder,
        **quantized,
    }


def quantization_of(preprocessing: Mapping[str, Any]) -> Quantization | None:
    """The quantization of an output's features; None if they were not quantized. ``preprocessing``: see above."""
    value = preprocessing.get(QUANTIZATION)
    return None if value is None else Quantization.from_dict(value)


def _as_json(quantization: Quantization) -> dict[str, Any]:
    return {**dataclasses.asdict(quantization), "float32_layers": list(quantization.float32_layers)}


def features_of(derived: Derived) -> dict[str, Any]:
    """Everything that determines the numbers of an embedding; ``features_id`` is its ``canonical_sha256``.

    It is equal for modules that share their base and differ only in the head.
    """
    return _features_of(preprocessing_of(derived), derived.spec.features_of)


def features_id_of(preprocessing: Mapping[str, Any], features_of: str) -> str:
    """The ``features_id`` of an output.

    Args:
      preprocessing: see ``preprocessing_of``.
      features_of: see ``ModelSpec``.
    """
    return canonical_sha256(_features_of(preprocessing, features_of))


def _features_of(preprocessing: Mapping[str, Any], features_of: str) -> dict[str, Any]:
    decides = {name: value for name, value in preprocessing.items() if name != "scores"}
    return {**decides, "features_of": features_of}


def output_spec_of(
    derived: Derived,
    *,
    output_format: str = "parquet",
    compression: str = "none",
    kept_fields: tuple[tuple[str, pa.DataType], ...] = (),
) -> OutputSpec:
    """The columns of an output, and the metadata of its files.

    Args:
      derived: the module and its options.
      output_format, compression, kept_fields: see ``OutputSpec``.

    Raises:
      ValueError: the output cannot hold a kept column, see ``check_kept``.
    """
    spec, predict = derived.spec, derived.predict
    preprocessing = preprocessing_of(derived)
    dimension = spec.embedding_dim if predict.embeddings else None
    names = predict.class_names
    facts: dict[str, Any] = {
        metadata_keys.SCHEMA_VERSION: schema.CURRENT_SCHEMA_VERSION,
        metadata_keys.VERSION: __version__,
        metadata_keys.MODULE_HANDLE: public_uri(spec.handle),
        metadata_keys.MODULE_FINGERPRINT: spec.fingerprint,
        metadata_keys.PREPROCESSING: json.dumps(preprocessing, sort_keys=True),
        metadata_keys.PREPROCESSING_ID: canonical_sha256(preprocessing),
        metadata_keys.ENGINE: spec.engine,
        metadata_keys.PRECISION: spec.precision,
        metadata_keys.SCORES: predict.scores if predict.top_k else None,
        metadata_keys.SCORES_REASON: f"{spec.score_kind}: {spec.scores_reason}" if predict.top_k else None,
        metadata_keys.EMBEDDING_DIM: dimension,
        metadata_keys.EMBEDDING_NORMALIZED: json.dumps(predict.normalize_embeddings) if dimension else None,
        metadata_keys.NUM_CLASSES: spec.num_classes,
        metadata_keys.TOP_K: predict.top_k or None,
        metadata_keys.LABELS_SHA256: canonical_sha256(names) if names else None,
        metadata_keys.FEATURES_ID: canonical_sha256(features_of(derived)) if dimension else None,
    }
    return OutputSpec(
        format=output_format,
        compression=compression,
        kept_fields=kept_fields,
        has_labels=names is not None,
        top_k=predict.top_k or 0,
        num_classes=spec.num_classes,
        embedding_dim=dimension,
        module_handle=facts[metadata_keys.MODULE_HANDLE],
        module_fingerprint=spec.fingerprint,
        preprocessing_id=facts[metadata_keys.PREPROCESSING_ID],
        metadata={name: str(value) for name, value in facts.items() if value is not None},
    )
