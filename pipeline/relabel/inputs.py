"""Turns the outputs named to ``beamlabel relabel`` into the input of the job: data shards and kept columns."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa

from beamlabel.pipeline.current.outputs import Output, find_outputs, is_among
from beamlabel.pipeline.errors import UsageError
from beamlabel.pipeline.job.earlier_features import EarlierFeatures, EarlierOutput
from beamlabel.pipeline.job.match_inputs import in_threads
from beamlabel.pipeline.job.preflight import Inputs
from beamlabel.pipeline.output.manifest import absolute_output
from beamlabel.transforms import storage
from beamlabel.transforms.inputs.kept_columns import KeptColumn
from beamlabel.transforms.inputs.parquet_source import ParquetColumns, open_parquet
from beamlabel.transforms.inputs.sources.embeddings import is_parquet
from beamlabel.transforms.inputs.unify_kept import check_values
from beamlabel.transforms.records import InputFile
from beamlabel.transforms.row_batches import EMBEDDINGS
from beamlabel.transforms.rows import metadata_keys, schema
from beamlabel.transforms.rows.schema import check_kept, own_columns_by_metadata
from beamlabel.transforms.rows.tf_examples import check_installed
from beamlabel.transforms.rows.types import normalized_type, parsed_type, stored_type, unified_type
from beamlabel.transforms.storage.errors import is_user_error

_INSTEAD = "label the images again, without the command relabel"
_Column = tuple[str, pa.DataType]


def relabel_inputs(patterns: Sequence[str], output: str, output_format: str) -> Inputs:
    """Finds the outputs and checks that their embeddings are of the same kind.

    Args:
      patterns: outputs, directories of outputs, or globs.
      output: directory of the new output, which must not contain any of them.
      output_format: format of the new output, which must support the kept columns.

    Raises:
      UsageError: there is no output, one cannot be relabeled, they do not fit together, or the shards differ from
        their manifests.
    """
    target = absolute_output(output)
    outputs = find_outputs(patterns, "OUTPUT")
    if is_among(target, patterns, outputs):
        raise UsageError(
            f"--output {target!r} is itself an OUTPUT, so the next run would read it; use another directory"
        )
    for one in outputs:
        _check(one)
    features = _features(outputs)
    try:
        files = tuple(file for found in in_threads(_shards, outputs) for file in found)
        if any(not is_parquet(file.path) for file in files):
            check_installed()
        kept = _kept(outputs, output_format)
        columns = ParquetColumns(kept=tuple(KeptColumn(name, name, kind) for name, kind in kept))
        checked = [file for file in files if kept and is_parquet(file.path)]
        in_threads(lambda file: check_values(file.path, columns, output_format), checked)
    except ImportError as error:
        raise UsageError(f"OUTPUT holds TFRecords: {error}") from error
    except (OSError, ValueError) as error:
        if not is_user_error(error):
            raise
        raise UsageError(f"OUTPUT: {error}") from error
    if not files:
        raise UsageError(f"OUTPUT {' '.join(patterns)}: their runs wrote no rows")
    return Inputs(files, columns, kept, features=features)


def _check(output: Output) -> None:
    """Refuses an output whose rows cannot be relabeled."""
    metadata = output.manifest["metadata"]
    version = metadata.get(metadata_keys.SCHEMA_VERSION)
    if version != schema.CURRENT_SCHEMA_VERSION:
        raise UsageError(
            f"OUTPUT: {output.directory} has schema version {version}, whose rows lack image_id and content_hash; "
            f"rewrite it with `beamlabel compact`, or {_INSTEAD}"
        )
    if metadata.get(metadata_keys.EMBEDDING_DIM) is None:
        raise UsageError(
            f"OUTPUT: {output.directory} has no embeddings: its module has no features, or --no_embeddings was used; "
            f"{_INSTEAD}"
        )


def _features(outputs: Sequence[Output]) -> EarlierFeatures:
    """The common properties of all outputs.

    Raises:
      UsageError: two of them differ.
    """
    first = outputs[0]
    facts = _facts(first)
    for other in outputs[1:]:
        differing = [name for name, value in _facts(other).items() if facts.get(name, value) != value]
        if differing:
            name = differing[0]
            raise UsageError(
                f"OUTPUT: the embeddings in {first.directory} and {other.directory} differ: {name} is "
                f"{facts[name]} and {_facts(other)[name]}; relabel them in two runs"
            )
        facts |= _facts(other)
    preprocessing = _preprocessing(first)
    found = tuple(EarlierOutput(one.directory, one.manifest) for one in outputs)
    return EarlierFeatures(found, preprocessing, int(first.manifest["metadata"][metadata_keys.EMBEDDING_DIM]))


def _facts(output: Output) -> dict[str, Any]:
    """Properties that must agree in all outputs; those that an earlier version did not record are left out."""
    metadata = output.manifest["metadata"]
    facts = {**_preprocessing(output), "embedding_dim": metadata[metadata_keys.EMBEDDING_DIM]}
    told = metadata.get(metadata_keys.FEATURES_ID)
    return facts if told is None else {**facts, "features_id": told}


def _preprocessing(output: Output) -> dict[str, Any]:
    try:
        value: dict[str, Any] = json.loads(output.manifest["metadata"][metadata_keys.PREPROCESSING])
    except (KeyError, ValueError) as error:
        raise UsageError(
            f"OUTPUT: the manifest in {output.directory} has no valid preprocessing: {error}"
        ) from error
    return {name: one for name, one in value.items() if name != "scores"}


def _shards(output: Output) -> list[InputFile]:
    """The data files that have rows, as listed in storage.

    Raises:
      ValueError: a file is missing, or its size differs from the manifest.
    """
    there = {file.path: file for file in storage.match(storage.escape(output.directory) + "/")}
    found = []
    for entry in output.files("data"):
        path = output.path(str(entry["name"]))
        file = there.get(path)
        if file is None or file.size not in (None, entry["bytes"]):
            state = "is missing" if file is None else f"has {file.size} bytes, not {entry['bytes']}"
            raise ValueError(f"{path} {state}; run `beamlabel verify {output.directory}`")
        if entry["rows"]:
            found.append(
                InputFile(path, EMBEDDINGS, file.size, str(entry["sha256"]), rows=int(entry["rows"]))
            )
    return found


def _kept(outputs: Sequence[Output], output_format: str) -> tuple[_Column, ...]:
    """The kept columns of all outputs, each with a type that holds its values in all of them.

    Raises:
      ValueError: no type can hold a column's values, or the output format does not support a column.
    """
    kept: dict[str, pa.DataType] = {}
    for output, columns in zip(outputs, in_threads(_kept_of, list(outputs)), strict=True):
        for name, kind in columns:
            try:
                kept[name] = unified_type(kept[name], kind) if name in kept else kind
            except ValueError as error:
                raise ValueError(
                    f"the kept column {name!r} is {kind} in {output.directory}, but {kept[name]} in earlier ones: "
                    f"{error}; relabel them in two runs"
                ) from error
    fields = tuple((name, stored_type(kind)) for name, kind in kept.items())
    check_kept(fields, output_format)
    return fields


def _kept_of(output: Output) -> list[_Column]:
    entry = next((one for one in output.files("data") if one["rows"]), None)
    if entry is None:
        return []
    path = output.path(str(entry["name"]))
    if is_parquet(path):
        own = own_columns_by_metadata(output.manifest["metadata"])
        with open_parquet(path, few=True) as file:
            return [(one.name, normalized_type(one.type)) for one in file.schema_arrow if one.name not in own]
    told: Mapping[str, str] | None = output.manifest.get("kept_columns")
    if told is None:
        if output.manifest["options"].get("keep_columns"):
            raise ValueError(
                f"{output.directory} was written by an earlier version of beamlabel, which did not store the types of "
                "kept columns"
            )
        return []
    return [(name, parsed_type(kind)) for name, kind in told.items()]
