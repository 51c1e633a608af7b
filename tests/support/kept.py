"""Helpers for kept columns: files with such columns, the checks before a run, and comparable values."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from beamlabel.pipeline.errors import UsageError
from beamlabel.pipeline.job.preflight import Inputs, check_inputs
from beamlabel.pipeline.options.parser import parse
from support.jobs import TINY


def plain(value: Any) -> Any:
    """The column as plain Python values; a UUID becomes its bytes, a tensor its numbers."""
    if isinstance(value, dict):
        return {name: plain(inner) for name, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(inner) for inner in value]
    if hasattr(value, "to_pydatetime"):
        return value.to_pydatetime()
    if hasattr(value, "to_pytimedelta"):
        return value.to_pytimedelta()
    return value


def logical(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """The column without extension types; times without a Python counterpart become numbers."""
    if isinstance(column.type, pa.BaseExtensionType):
        kind = pa.bool_() if column.type == pa.bool8() else column.type.storage_type
        column = pa.chunked_array([chunk.storage for chunk in column.chunks]).cast(kind)
    return column


def values(column: pa.ChunkedArray) -> list:
    try:
        return plain(logical(column).to_pylist())
    except (ValueError, OverflowError):
        return column.cast(pa.int64()).to_pylist()


def write(path: Path, images: list[str], columns: dict[str, Any], **options: Any) -> Path:
    pq.write_table(pa.table({"uri": images, **columns}), path, **options)
    return path


def checked(*arguments: object) -> Inputs:
    options, _ = parse(["--module", TINY, "--output", "/nowhere", *map(str, arguments)])
    return check_inputs(options.inputs, options.output)


def refusal(*arguments: object) -> str:
    with pytest.raises(UsageError) as error:
        checked(*arguments)
    return str(error.value)
