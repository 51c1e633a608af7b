"""Every mistake in inputs and output that can be seen before a worker starts. Does not import Beam."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import pyarrow as pa

from beamlabel.pipeline import layout
from beamlabel.pipeline.errors import UsageError
from beamlabel.pipeline.options.job_options import InputOptions, OutputOptions
from beamlabel.pipeline.output import staging
from beamlabel.pipeline.output.manifest import is_result
from beamlabel.transforms import storage
from beamlabel.transforms.inputs.file_kinds import content_format
from beamlabel.transforms.inputs.parquet_source import ParquetColumns, choose_columns, open_parquet
from beamlabel.transforms.inputs.unify_kept import check_values, unified_columns
from beamlabel.transforms.records import InputFile
from beamlabel.transforms.rows.schema import check_kept
from beamlabel.transforms.storage.errors import is_user_error
from beamlabel.transforms.storage.patterns import fixed_start, matcher

_THREADS = 16
_HEAD_BYTES = 64
_T = TypeVar("_T")
_R = TypeVar("_R")


@dataclass(frozen=True)
class Inputs:
    """What the input options name.

    Attributes:
      files: matched files in order, each once; with ``images`` one pattern each.
      columns: which columns of Parquet files are read.
      kept: name and type of each kept column, in the output.
    """

    files: tuple[InputFile, ...]
    columns: ParquetColumns
    kept: tuple[tuple[str, pa.DataType], ...]


def check_inputs(options: InputOptions, output: OutputOptions) -> Inputs:
    """Matches the inputs, finds their formats, and checks the columns of all Parquet files.

    Args:
      options: that name the inputs.
      output: in whose folder no input may lie; its format decides which columns can be kept.

    Raises:
      UsageError: a pattern without a match, a file of another format, a column that is not there.
    """
    if options.input_format == "images":
        return Inputs(tuple(_image_patterns(options, output)), ParquetColumns(), ())
    below = storage.absolute(output.output).rstrip("/") + "/"
    found: dict[str, storage.StoredFile] = {}
    for pattern in map(_absolute, options.input):
        matches = [match for match in _matches(pattern) if not _hidden(match.path, pattern)]
        if not matches:
            raise UsageError(f"--input {pattern!r} matches no file")
        if any(match.path.startswith(below) for match in matches):
            raise UsageError(f"--output {output.output!r} lies where --input {pattern!r} looks for its files")
        found.update((match.path, match) for match in matches)
    formats = _formats(list(found), options.input_format)
    files = [
        InputFile(m.path, kind, m.size, m.version) for m, kind in zip(found.values(), formats, strict=True)
    ]
    columns, kept = _parquet_columns(files, options, output.output_format)
    return Inputs(tuple(files), columns, kept)


def _absolute(pattern: str) -> str:
    try:
        return storage.absolute(pattern)
    except ValueError as error:
        raise UsageError(f"--input {pattern!r}: {error}") from error


def _matches(pattern: str) -> Iterable[storage.StoredFile]:
    try:
        yield from storage.match(pattern)
    except (OSError, ValueError) as error:
        if not is_user_error(error):
            raise
        raise UsageError(f"--input {pattern!r}: {error}") from error


def _image_patterns(options: InputOptions, output: OutputOptions) -> Iterable[InputFile]:
    below = storage.absolute(output.output).rstrip("/") + "/"
    for pattern in dict.fromkeys(map(_absolute, options.input)):
        first = next(iter(_matches(pattern)), None)
        if first is None:
            raise UsageError(f"--input {pattern!r} matches no file")
        if _could_match(pattern, below + "part-0.parquet"):
            raise UsageError(f"--output {output.output!r} lies where --input {pattern!r} looks for images")
        yield InputFile(pattern, "images")


def _could_match(pattern: str, path: str) -> bool:
    """Whether a file at ``path`` would be among the pattern's matches."""
    return path.startswith(pattern.rstrip("/") + "/") or bool(
        matcher(pattern + "**" * pattern.endswith("/"))(path)
    )


def _hidden(path: str, pattern: str) -> bool:
    """Whether a match lies in, or is, something that starts with ``_`` or ``.``, as Hive and Spark hide it."""
    if path == pattern:
        return False
    below = path[len(fixed_start(pattern)) :]
    return any(part.startswith(("_", ".")) for part in below.split("/"))


def _in_threads(function: Callable[[_T], _R], values: list[_T]) -> list[_R]:
    with ThreadPoolExecutor(_THREADS) as pool:
        return list(pool.map(function, values))


def _formats(paths: list[str], wanted: str) -> list[str]:
    formats = []
    for path, kind in zip(paths, _in_threads(_sniff, paths), strict=True):
        if kind == "image":
            raise UsageError(f"{path} is an image, not a list of URIs: label it with --input_format images")
        if kind == "binary" or (wanted != "auto" and kind != wanted):
            raise UsageError(f"{path} is {'neither text nor Parquet' if kind == 'binary' else kind}"
                             + (f", not {wanted}, as --input_format says" if wanted != "auto" else ""))  # fmt: skip
        formats.append(kind)
    return formats


def _sniff(path: str) -> str:
    try:
        with storage.open_input(path) as file:
            if not file.seekable():
                raise UsageError(f"--input {path!r} is a pipe; write it to a file first")
            return content_format(file.read(_HEAD_BYTES))
    except OSError as error:
        if not is_user_error(error):
            raise
        raise UsageError(f"--input {path!r} cannot be read: {error}") from error


def _parquet_columns(
    files: list[InputFile], options: InputOptions, output_format: str
) -> tuple[ParquetColumns, tuple[tuple[str, pa.DataType], ...]]:
    asked = {"--uri_column": options.uri_column, "--image_column": options.image_column}
    asked["--keep_columns"] = next(iter(options.keep_columns), None)
    for file in files:
        for option, value in asked.items():
            if value is not None and file.format != "parquet":
                raise UsageError(f"{option} {value}: {file.path} is a {file.format} file and has no columns")
    if not any(file.format == "parquet" for file in files):
        return ParquetColumns(), ()

    paths = [file.path for file in files if file.format == "parquet"]
    try:
        columns = unified_columns(
            list(zip(paths, _in_threads(lambda path: _columns(path, options), paths), strict=True))
        )
        kept = tuple((column.name, column.type) for column in columns.kept)
        _check_kept(kept, output_format, paths)
        # With a sample, the first rows are those of any number of rows.
        rows = options.limit if options.sample >= 1 else None
        _in_threads(lambda path: check_values(path, columns, output_format, rows=rows), paths if kept else [])
    except (OSError, ValueError) as error:
        if not is_user_error(error):
            raise
        raise UsageError(str(error)) from error
    return columns, kept


def _check_kept(kept: tuple[tuple[str, pa.DataType], ...], output_format: str, paths: list[str]) -> None:
    try:
        check_kept(kept, output_format)
    except ValueError as error:
        others = f" and {len(paths) - 1} more" if len(paths) > 1 else ""
        raise ValueError(f"{paths[0]}{others}: {error}") from error


def _columns(path: str, options: InputOptions) -> ParquetColumns:
    with open_parquet(path) as parquet:
        schema = parquet.schema_arrow
    return choose_columns(
        schema, uri=options.uri_column, image=options.image_column, kept=options.keep_columns, path=path
    )


def check_output(output: str, if_exists: str) -> None:
    """Refuses an output that exists, unless it may be overwritten and is beamlabel's own.

    Raises:
      UsageError: the output exists, or holds files that beamlabel did not write.
    """
    if layout.OWN in output.split("/"):
        raise UsageError(f"--output {output!r}: beamlabel keeps its own files in {layout.OWN}/")
    if storage.is_local(output) and Path(output).exists() and not Path(output).is_dir():
        raise UsageError(f"--output {output!r} is a file, not a folder")
    own = staging.inside(output) + "/"
    files = (file.path for file in storage.match(storage.escape(output) + "/"))
    there = next((path for path in files if not path.startswith(own)), None)
    if there is None:
        return
    if if_exists == "error":
        raise UsageError(
            f"--output {output!r} exists (it holds {there}); choose another or --if_exists overwrite"
        )
    try:
        is_ours = is_result(json.loads(storage.read_bytes(storage.join(output, layout.MANIFEST))))
    except (FileNotFoundError, IsADirectoryError, ValueError):
        is_ours = False
    if not is_ours:
        raise UsageError(
            f"--if_exists {if_exists}: {output!r} is not a result of beamlabel (it holds {there})"
        )
