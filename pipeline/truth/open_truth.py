"""Opens the truth that the options name."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import pyarrow as pa

from beamlabel.pipeline.errors import UsageError
from beamlabel.pipeline.truth.column_truth import ColumnTruth
from beamlabel.pipeline.truth.file_entries import read_entries
from beamlabel.pipeline.truth.file_truth import FileTruth
from beamlabel.pipeline.truth.layered_truth import LayeredTruth
from beamlabel.pipeline.truth.options import TruthOptions
from beamlabel.pipeline.truth.parent_truth import ParentTruth
from beamlabel.pipeline.truth.truth import Batches, Truth
from beamlabel.transforms import storage
from beamlabel.transforms.rows.metadata_keys import SCHEMA_VERSION
from beamlabel.transforms.rows.schema import OWN_COLUMNS, own_columns_by_metadata
from beamlabel.transforms.storage.patterns import fixed_start

PARENT = "parent"


def open_truth(
    options: TruthOptions,
    schema: pa.Schema,
    *,
    multi_label: bool = False,
    manifests: Iterable[Mapping[str, Any]] = (),
    batches: Batches | None = None,
) -> Truth:
    """Opens the truth that the options name; reads its files, but rows only through ``batches``.

    Args:
      options: at least one truth; later ones take precedence.
      schema: schema of the outputs' rows, with their metadata.
      multi_label: whether an image may have several classes even if the options do not say so.
      manifests: manifests of the outputs, with the base directories of relative names and the labeled directories.
      batches: reads some columns of all rows, and of failures if they matter. Without it no image is matched by file
        name, since that has to be unique.

    Raises:
      UsageError: a truth cannot be read or parsed.
    """
    runs = [manifest for manifest in manifests if manifest]
    truths = [_one(name, options, schema, multi_label, runs, batches) for name in options.truth]
    if not truths:
        raise UsageError("--truth is missing")
    has_files = any(isinstance(truth, FileTruth) for truth in truths)
    for option, name in (("--truth_column", options.truth_column), ("--truth_key", options.truth_key)):
        if name is not None and not has_files:
            raise UsageError(f"{option} {name}: --truth {options.truth[-1]} is not a file")
    return LayeredTruth(truths, multi_label=multi_label or options.multi_label is not None)


def _one(
    name: str,
    options: TruthOptions,
    schema: pa.Schema,
    multi_label: bool,
    runs: Sequence[Mapping[str, Any]],
    batches: Batches | None,
) -> Truth:
    if name == PARENT:
        if PARENT in schema.names:
            raise UsageError(
                f"--truth {PARENT}: it stands for the directory of each image, but the output has a column of this "
                f"name; keep the column under another name: --keep_columns {PARENT}=NAME"
            )
        return ParentTruth(_tops(runs))
    if name in schema.names:
        if name in _own(schema, runs):
            raise UsageError(
                f"--truth {name}: beamlabel wrote that column; name a kept column, or the file ./{name}"
            )
        kind = schema.field(name).type
        return ColumnTruth(name, kind, options.multi_label, multi_label=multi_label)
    _check_is_file(name, [one for one in schema.names if one not in _own(schema, runs)])
    bases = list(dict.fromkeys(base for run in runs if (base := run.get("options", {}).get("base_dir"))))
    return FileTruth(
        read_entries(name, options.truth_key, options.truth_column, options.multi_label),
        bases=bases,
        directory=storage.absolute(name).rpartition("/")[0] or "/",
        image_ids="image_id" in _own(schema, runs) and "image_id" in schema.names,
        batches=batches,
    )


def _own(schema: pa.Schema, runs: Sequence[Mapping[str, Any]]) -> frozenset[str]:
    """beamlabel's own columns by the metadata of schema or runs; without metadata, all names that it ever uses."""
    told = [{key.decode(): value.decode() for key, value in (schema.metadata or {}).items()}]
    told += [run.get("metadata", {}) for run in runs]
    known = [metadata for metadata in told if SCHEMA_VERSION in metadata]
    return frozenset().union(*map(own_columns_by_metadata, known)) if known else frozenset(OWN_COLUMNS)


def _check_is_file(name: str, kept_columns: Sequence[str]) -> None:
    kept = ", ".join(kept_columns) or "none"
    try:
        is_there = storage.exists(name)
    except (OSError, ValueError) as error:
        raise UsageError(f"--truth {name!r}: {error}") from error
    if not is_there:
        raise UsageError(
            f"--truth {name!r}: it is neither a kept column of the result ({kept}) nor a file, nor "
            f"{PARENT!r}, the directory of each image"
        )


def _tops(runs: Sequence[Mapping[str, Any]]) -> set[str]:
    """The labeled directories of runs with a single one: an image directly inside it has no class directory."""
    found: set[str] = set()
    for run in runs:
        files = run.get("input_files") or []
        if len(files) == 1 and files[0].get("format") == "images":
            path = str(files[0]["path"])
            found.update((path.rstrip("/"), fixed_start(path).rstrip("/")))
    return found
