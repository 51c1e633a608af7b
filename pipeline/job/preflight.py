"""Every mistake in inputs and output that can be seen before a worker starts. Does not import Beam."""

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
from beamlabel.transforms.inputs.sources.folder_kept import folder_kept
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
    """What the input options name.

    Attributes:
      files: matched files in order, each once; with ``images`` one pattern each.
      columns: which columns of the files are read.
      kept: name and type of each kept column, in the output.
      wanted: which files of a listing are asked for.
      left_out: how many files that were named are no input, by cause; see ``match_inputs``.
      features: of earlier outputs whose rows are the input; None if the input is references.
    """

    files: tuple[InputFile, ...]
    columns: ParquetColumns
    kept: tuple[tuple[str, pa.DataType], ...]
    wanted: PathFilter = field(default_factory=PathFilter)
    left_out: Mapping[str, int] = field(default_factory=dict)
    features: EarlierFeatures | None = None


def check_inputs(options: InputOptions, output: OutputOptions) -> Inputs:
    """Matches the inputs, finds their formats, and checks the columns of those that have some.

    Args:
      options: that name the inputs.
      output: in whose folder no input may lie; its format decides which columns can be kept.

    Raises:
      UsageError: a pattern without a match, a file of another format, a column that is not there.
    """
    matched = match_inputs(options, output_place(output.output))
    for cause, count in matched.left_out.items():
        _LOGGER.info("--input: %d of the named files left out: %s", count, cause)
    files = _described(matched.files, options)
    if options.keep_columns and any(file.format in ARCHIVES for file in files):
        columns, kept = _member_columns(files, options, output.output_format)
    else:
        columns, kept = _columns_of(files, options, output.output_format)
    read = tuple(with_used_columns(file, columns) for file in files)
    return Inputs(read, columns, kept, path_filter(options), matched.left_out)


def check_schemes_of(inputs: Inputs, schemes: Sequence[str] | None) -> None:
    """Refuses inputs whose files are the images, or archives of them, where none of these may be fetched.

    Lists and tables may lie anywhere: whoever starts the run names them, and only what they hold is not trusted.

    Raises:
      UsageError: names the input.
    """
    if schemes is None:
        return
    for file in inputs.files:
        kind = scheme(file.path) or LOCAL
        if file.format in (IMAGES, *ARCHIVES) and kind not in schemes:
            raise UsageError(
                f"--allowed_schemes {','.join(schemes)}: the images of --input {public_uri(file.path)} are of the "
                f"scheme {kind!r}; add it, or leave the input out"
            )


def _described(files: Sequence[InputFile], options: InputOptions) -> list[InputFile]:
    """The files with how they are read, if they do not tell it themselves as Parquet does."""
    table = next((file for file in files if file.format in TABLES), None)
    if table is not None and options.image_column is not None:
        raise UsageError(
            f"--image_column {options.image_column}: {table.path} is a {table.format} file, which holds no encoded "
            "images"
        )
    # With a sample, the first rows are those of any number of rows.
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
            _LOGGER.info("--input: %s of the column %r", what, name)
        for file in others:
            kept_columns = folder_kept(file, options.keep_columns, path_filter(options))
            found.append((file.path, dataclasses.replace(read, kept=kept_columns)))
        columns = unified_columns(found)
        kept = tuple((column.name, column.type) for column in columns.kept)
        _check_kept(kept, output_format, [path for path, _ in found])
        # With a sample, the first rows are those of any number of rows.
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
    """What ``--keep_columns`` keeps of archives."""
    for name, value in (("uri_column", options.uri_column), ("image_column", options.image_column)):
        if value is not None:
            raise UsageError(f"--{name} {value}: an archive has no columns")
    other = next((file for file in files if file.format not in ARCHIVES), None)
    if other is not None:
        raise UsageError(
            f"--keep_columns: {other.path} is no archive, as others of the inputs are; label them in runs of their own"
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
    """None for a file without a record, which may have no columns either."""
    schema = schema_of_input(file)
    if file.table is not None and not schema.names:
        return None
    columns = choose_columns(
        schema, uri=options.uri_column, image=options.image_column, kept=options.keep_columns, path=file.path
    )
    if columns.lists and file.table is not None:
        raise ValueError(
            f"--uri_column {columns.uri!r}: lists in {file.path}; only Parquet may have lists of URIs"
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
    """Refuses an output that exists, unless it may be overwritten and is beamlabel's own.

    Raises:
      UsageError: the output exists, or holds files that beamlabel did not write.
    """
    if layout.OWN in output.split("/"):
        raise UsageError(f"--output {output!r}: beamlabel keeps its own files in {layout.OWN}/")
    there = next(_others(output), None)
    if there is None:
        return
    if if_exists == "error":
        hint = "choose another or --if_exists overwrite" if _is_ours(output) else "choose another"
        raise UsageError(f"--output {output!r} exists (it holds {there}); {hint}")
    if not _is_ours(output):
        raise UsageError(
            f"--if_exists {if_exists}: {output!r} is not a result of beamlabel (it holds {there})"
        )
    # What cannot be replaced is seen before the work, not after it.
    for name in (layout.MANIFEST, layout.SUCCESS, layout.SCHEMA_PBTXT, layout.REPORT):
        check_place(storage.join(output, name), is_folder=False)
    for name in (layout.FAILURES, layout.UNCHANGED, layout.DELETED):
        check_place(storage.join(output, name), is_folder=True)


def _others(output: str) -> Iterator[str]:
    """Files of an output but those in our folder, which may be many."""
    own = staging.inside(output)
    for found in storage.entries(output):
        if isinstance(found, storage.StoredFile):
            yield found.path
        elif found.path != own:
            yield from (file.path for file in storage.match(storage.escape(found.path) + "/"))


def _is_ours(output: str) -> bool:
    """Whether a result of beamlabel lies there.

    Raises:
      DamagedError: its manifest is damaged, and so does not tell what may be deleted.
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
