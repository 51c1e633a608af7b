"""Checks inputs and output for every mistake that can be found before a worker starts. Does not import Beam."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import pyarrow as pa

from beamlabel.pipeline import layout
from beamlabel.pipeline.errors import UsageError
from beamlabel.pipeline.job.earlier_features import EarlierFeatures
from beamlabel.pipeline.job.match_inputs import in_threads, match_inputs, path_filter
from beamlabel.pipeline.options.job_options import InputOptions, OutputOptions
from beamlabel.pipeline.output import staging
from beamlabel.pipeline.output.manifest import parse_result, published_names
from beamlabel.pipeline.output.own_files import check_place
from beamlabel.pipeline.output.place import output_place
from beamlabel.transforms import storage
from beamlabel.transforms.inputs.parquet_rows import check_parquet
from beamlabel.transforms.inputs.parquet_source import ParquetColumns, choose_columns
from beamlabel.transforms.inputs.sources.archive import ARCHIVES
from beamlabel.transforms.inputs.sources.archive_columns import parse_columns, see_archive, unified_members
from beamlabel.transforms.inputs.sources.directory_kept import directory_kept
from beamlabel.transforms.inputs.sources.path_filter import PathFilter
from beamlabel.transforms.inputs.sources.registry import IMAGES, WITHOUT_COLUMNS
from beamlabel.transforms.inputs.tables.decide_types import check_table_values
from beamlabel.transforms.inputs.tables.described import TABLES, described, schema_of_input, with_used_columns
from beamlabel.transforms.inputs.unify_kept import check_values, unified_columns
from beamlabel.transforms.loading.web.allowed_schemes import LOCAL
from beamlabel.transforms.records import InputFile
from beamlabel.transforms.rows.schema import check_kept
from beamlabel.transforms.secrets.logs import get_logger
from beamlabel.transforms.storage.errors import is_user_error
from beamlabel.transforms.storage.inside import below
from beamlabel.transforms.storage.uris import public_uri, scheme

_WITH_COLUMNS = ("parquet", *TABLES)
_LOGGER = get_logger("beamlabel")


@dataclass(frozen=True)
class Inputs:
    """The inputs that the options name.

    Attributes:
      files: matched files in order, each once; with ``images`` one pattern each.
      columns: the columns to read.
      kept: name and type of each kept column, in the output.
      wanted: filter for the files of a listing.
      left_out: the number of named files that are no input, by cause; see ``match_inputs``.
      features: of earlier outputs whose rows are the input; None if the input is references.
    """

    files: tuple[InputFile, ...]
    columns: ParquetColumns
    kept: tuple[tuple[str, pa.DataType], ...]
    wanted: PathFilter = field(default_factory=PathFilter)
    left_out: Mapping[str, int] = field(default_factory=dict)
    features: EarlierFeatures | None = None


def check_inputs(options: InputOptions, output: OutputOptions) -> Inputs:
    """Matches the inputs, finds their formats, and checks their columns if they have any.

    Args:
      options: that name the inputs.
      output: its directory may hold no input; its format decides which columns can be kept.

    Raises:
      UsageError: a pattern without a match, a file of another format, or a missing column.
    """
    matched = match_inputs(options, output_place(output.output))
    for cause, count in matched.left_out.items():
        _LOGGER.info("--input: left out %d of the named files: %s", count, cause)
    files = _described(matched.files, options)
    if options.keep_columns and any(file.format in ARCHIVES for file in files):
        columns, kept = _member_columns(files, options, output.output_format)
    else:
        columns, kept = _columns_of(files, options, output.output_format)
    read = tuple(with_used_columns(file, columns) for file in files)
    return Inputs(read, columns, kept, path_filter(options), matched.left_out)


def check_schemes_of(inputs: Inputs, schemes: Sequence[str] | None) -> None:
    """Refuses images and archives of images whose scheme is not allowed.

    Lists and tables may have any scheme: the user names them, and only their contents are not trusted.

    Raises:
      UsageError: an input has another scheme; the message names it.
    """
    if schemes is None:
        return
    for file in inputs.files:
        kind = scheme(file.path) or LOCAL
        if file.format in (IMAGES, *ARCHIVES) and kind not in schemes:
            raise UsageError(
                f"--allowed_schemes {','.join(schemes)}: the images of --input {public_uri(file.path)} have the "
                f"scheme {kind!r}; add it, or leave the input out"
            )


def _described(files: Sequence[InputFile], options: InputOptions) -> list[InputFile]:
    """Adds a description of how to read each file, unless the file describes itself, as Parquet does."""
    table = next((file for file in files if file.format in TABLES), None)
    if table is not None and options.image_column is not None:
        raise UsageError(
            f"--image_column {options.image_column}: {table.path} is a {table.format} file, which cannot hold encoded "
            "images"
        )
    # With a sample, it is unknown how many rows --limit reaches.
    rows = options.limit if options.sample >= 1 else None
    try:
        return described(files, options.uri_column, options.keep_columns, rows=rows, in_threads=in_threads)
    except (OSError, ValueError) as error:
        if not is_user_error(error):
            raise
        raise UsageError(str(error) if str(error).startswith("--") else f"--input: {error}") from error


def _columns_of(
    files: list[InputFile], options: InputOptions, output_format: str
) -> tuple[ParquetColumns, tuple[tuple[str, pa.DataType], ...]]:
    asked = {"--uri_column": options.uri_column, "--image_column": options.image_column}
    for file in files:
        for option, value in asked.items():
            if value is not None and file.format in (*WITHOUT_COLUMNS, *ARCHIVES):
                raise UsageError(f"{option} {value}: {file.path} is a {file.format} file and has no columns")
    with_columns = [file for file in files if file.format in _WITH_COLUMNS]
    others = [file for file in files if file.format in WITHOUT_COLUMNS] if options.keep_columns else []
    try:
        chosen = in_threads(lambda file: _columns(file, options), with_columns)
        found = [(file.path, one) for file, one in zip(with_columns, chosen, strict=True) if one is not None]
        if not found and not others:
            return ParquetColumns(), ()
        read = dataclasses.replace(found[0][1], kept=()) if found else ParquetColumns()
        if options.uri_column is None and options.image_column is None and found:
            what, name = ("URIs", read.uri) if read.image is None else ("images", read.image)
            _LOGGER.info("--input: reading %s from the column %r", what, name)
        for file in others:
            kept_columns = directory_kept(file, options.keep_columns, path_filter(options))
            found.append((file.path, dataclasses.replace(read, kept=kept_columns)))
        columns = unified_columns(found)
        kept = tuple((column.name, column.type) for column in columns.kept)
        _check_kept(kept, output_format, [path for path, _ in found])
        # With a sample, it is unknown how many rows --limit reaches.
        rows = options.limit if options.sample >= 1 else None
        in_threads(
            lambda file: _check_values(file, columns, output_format, rows), with_columns if kept else []
        )
    except (OSError, ValueError) as error:
        if not is_user_error(error):
            raise
        raise UsageError(str(error)) from error
    return columns, kept


def _member_columns(
    files: list[InputFile], options: InputOptions, output_format: str
) -> tuple[ParquetColumns, tuple[tuple[str, pa.DataType], ...]]:
    """The columns that ``--keep_columns`` keeps of archives."""
    for name, value in (("uri_column", options.uri_column), ("image_column", options.image_column)):
        if value is not None:
            raise UsageError(f"--{name} {value}: an archive has no columns")
    other = next((file for file in files if file.format not in ARCHIVES), None)
    if other is not None:
        raise UsageError(
            f"--keep_columns: {other.path} is not an archive, but other inputs are; label them in separate runs"
        )
    wanted = path_filter(options)
    limit = options.limit if options.sample >= 1 else None
    try:
        members = parse_columns(options.keep_columns)
        seen = in_threads(lambda file: see_archive(file, members, wanted, output_format, limit), files)
        columns = ParquetColumns(kept=unified_members(list(zip(files, seen, strict=True)), members))
        kept = tuple((column.name, column.type) for column in columns.kept)
        _check_kept(kept, output_format, [file.path for file in files])
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


def _columns(file: InputFile, options: InputOptions) -> ParquetColumns | None:
    """The columns to read; None for a file without records, which may have no columns either."""
    schema = schema_of_input(file)
    if file.table is not None and not schema.names:
        return None
    columns = choose_columns(
        schema, uri=options.uri_column, image=options.image_column, kept=options.keep_columns, path=file.path
    )
    if columns.lists and file.table is not None:
        raise ValueError(
            f"--uri_column {columns.uri!r} has lists in {file.path}; only Parquet may have lists of URIs"
        )
    if file.format == "parquet":
        check_parquet(file.path, columns)
    return columns


def _check_values(file: InputFile, columns: ParquetColumns, output_format: str, rows: int | None) -> None:
    if file.table is None:
        check_values(file.path, columns, output_format, rows=rows)
    else:
        check_table_values(file, columns, output_format, rows=rows)


def check_output(output: str, if_exists: str) -> None:
    """Refuses an output that exists, unless beamlabel wrote it and it may be overwritten.

    Raises:
      UsageError: the output exists, or holds files that beamlabel did not write.
    """
    if layout.OWN in output.split("/"):
        raise UsageError(f"--output {output!r}: beamlabel keeps its own files in {layout.OWN}/")
    there = next(_others(output), None)
    if there is None:
        return
    if if_exists == "error":
        hint = (
            "use another directory or --if_exists overwrite" if _is_ours(output) else "use another directory"
        )
        raise UsageError(f"--output {output!r} exists (it holds {there}); {hint}")
    if not _is_ours(output):
        raise UsageError(
            f"--if_exists {if_exists}: {output!r} is not a result of beamlabel (it holds {there})"
        )
    # Files that cannot be replaced must be found before the work, not after it.
    for name in (layout.MANIFEST, layout.SUCCESS, layout.SCHEMA_PBTXT, layout.REPORT):
        check_place(storage.join(output, name), is_directory=False)
    for name in (layout.FAILURES, layout.UNCHANGED, layout.DELETED):
        check_place(storage.join(output, name), is_directory=True)


def _others(output: str) -> Iterator[str]:
    """Files of an output outside our own directory, which may hold many."""
    own = staging.inside(output)
    for found in storage.entries(output):
        if isinstance(found, storage.StoredFile):
            yield found.path
        elif found.path != own:
            yield from (file.path for file in storage.match(storage.escape(found.path) + "/"))


def _is_ours(output: str) -> bool:
    """Whether the output is a result of beamlabel.

    Raises:
      DamagedError: its manifest is damaged, so it is unknown which files may be deleted.
      OSError: it cannot be reached.
      OutsideError: a link in it leads elsewhere.
    """
    try:
        path = storage.join(output, layout.MANIFEST)
        manifest = parse_result(path, storage.read_bytes(path))
    except (FileNotFoundError, IsADirectoryError):
        return False
    if manifest is None:
        return False
    for name in published_names(manifest):
        below(output, name)
    return True
