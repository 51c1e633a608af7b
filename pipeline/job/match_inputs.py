"""Resolves ``--input`` into files with references, directories and patterns of images, or images."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Container, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TypeVar

import bracex

from beamlabel.pipeline.errors import UsageError
from beamlabel.pipeline.options.job_options import InputOptions
from beamlabel.pipeline.output.place import OwnDirectories
from beamlabel.transforms import storage
from beamlabel.transforms.inputs.archives.compression import ARCHIVE_ENDINGS, TAR_ENDINGS, is_compressed_tar
from beamlabel.transforms.inputs.archives.open_archive import TAR, ZIP
from beamlabel.transforms.inputs.file_kinds import HEAD_BYTES, content_format
from beamlabel.transforms.inputs.sources.archive import ARCHIVES
from beamlabel.transforms.inputs.sources.documents import DOCUMENT, is_document, may_be_list
from beamlabel.transforms.inputs.sources.image_files import FileKind, kind_by_name
from beamlabel.transforms.inputs.sources.listing import listed
from beamlabel.transforms.inputs.sources.packed import Found, LeftOut
from beamlabel.transforms.inputs.sources.path_filter import PathFilter, is_archive_name
from beamlabel.transforms.inputs.sources.registry import IMAGES
from beamlabel.transforms.inputs.tables.described import TABLES
from beamlabel.transforms.inputs.tables.table_kinds import Unclear, table_by_name, table_kind
from beamlabel.transforms.records import InputFile
from beamlabel.transforms.storage.errors import is_user_error
from beamlabel.transforms.storage.patterns import fixed_start, has_glob
from beamlabel.transforms.storage.uris import public_uri, scheme

_AUTO = "auto"
# Files of a directory that are checked before it is taken for a directory of images.
_LOOKED_AT = 10_000
# Files that hold images or references themselves. Beside images, the intended input is ambiguous.
_CONTAINERS = (".parquet", *ARCHIVE_ENDINGS)
# The most shards that a pattern with braces may name.
_MAX_SHARDS = 1_000_000
_NO_INPUT = "neither text, Parquet nor an archive"
_THREADS = 16
_T = TypeVar("_T")
_R = TypeVar("_R")


@dataclass(frozen=True)
class Matched:
    """The inputs that the patterns name.

    Attributes:
      files: in order, each once; a directory or pattern of images is one entry.
      left_out: the number of named files that are no input, by cause; those of a directory are counted when it is
        listed.
    """

    files: tuple[InputFile, ...]
    left_out: Mapping[str, int] = field(default_factory=dict)


def path_filter(options: InputOptions) -> PathFilter:
    """The filter of ``--include`` and ``--exclude``.

    Raises:
      UsageError: a glob is invalid.
    """
    for name, globs in (("include", options.include), ("exclude", options.exclude)):
        for glob in globs:
            try:
                PathFilter((glob,))
            except ValueError as error:
                raise UsageError(f"--{name}: {error}") from error
    return PathFilter(options.include, options.exclude)


def match_inputs(options: InputOptions, output: str) -> Matched:
    """Matches all patterns and determines the kind of each input.

    Args:
      options: that name the inputs.
      output: absolute; no input may lie in it.

    Raises:
      UsageError: a pattern without a match, a file of another format, an output among the inputs, or an ambiguous
        directory.
    """
    wanted = path_filter(options)
    own = OwnDirectories(output.rstrip("/"))
    patterns = list(dict.fromkeys(map(_absolute, options.input)))
    patterns = list(dict.fromkeys(one for pattern in patterns for one in _expanded(pattern)))
    named = dict(zip(patterns, in_threads(_named_file, patterns), strict=True))
    formats = _formats([path for path, file in named.items() if file is not None], options.input_format)
    sidecars = _sidecars(formats) if options.input_format == _AUTO else set()
    found: dict[str, InputFile] = {}
    left_out = Counter[str]()
    for pattern, file in named.items():
        if pattern in sidecars:
            left_out[_cause(pattern)] += 1
        elif file is not None:
            if own.hold(pattern):
                raise UsageError(f"--output {output!r} holds --input {pattern!r}; use another directory")
            named_file = InputFile(pattern, formats[pattern], file.size, file.version)
            found.setdefault(pattern, _checked(named_file, options.input_format))
        else:
            for one in _match_pattern(pattern, options, wanted, own, left_out):
                found.setdefault(one.path, one)
    return Matched(tuple(found.values()), dict(+left_out))


def _expanded(pattern: str) -> list[str]:
    """Expands a pattern with braces like shells and WebDataset, unless it matches literally."""
    if "{" not in pattern or _named_file(pattern) is not None or next(_matches(pattern), None) is not None:
        return [pattern]
    try:
        return bracex.expand(pattern, keep_escapes=True, limit=_MAX_SHARDS)
    except (ValueError, RecursionError, bracex.ExpansionLimitException) as error:
        raise UsageError(f"--input {pattern!r}: {error}") from error


def in_threads(function: Callable[[_T], _R], values: list[_T]) -> list[_R]:
    """Applies the function to each value, in order, in parallel to hide the latency of storage."""
    with ThreadPoolExecutor(_THREADS) as pool:
        return list(pool.map(function, values))


def _absolute(pattern: str) -> str:
    if scheme(pattern) in ("http", "https"):
        raise UsageError(
            f"--input {public_uri(pattern)!r}: inputs are not read from the web; download a list, or write the URLs "
            "of images to a file, one per line, and use --allow_http"
        )
    try:
        path = storage.absolute(pattern)
    except ValueError as error:
        raise UsageError(f"--input {pattern!r}: {error}") from error
    if public_uri(path) != path:
        raise UsageError(
            f"--input {public_uri(path)!r}: the URI holds credentials, which the result would contain; remove them, "
            "and configure the credentials of the storage instead"
        )
    return path


def _named_file(pattern: str) -> storage.StoredFile | None:
    """The file whose path is the pattern; None for a directory or a pattern."""
    if pattern.endswith("/"):
        return None
    try:
        return storage.stat(pattern)
    except (FileNotFoundError, IsADirectoryError):
        return None
    except (OSError, ValueError) as error:
        raise _unreadable(pattern, error) from error


def _unreadable(pattern: str, error: Exception) -> Exception:
    return UsageError(f"--input {pattern!r}: {error}") if is_user_error(error) else error


def _matches(pattern: str) -> Iterator[storage.StoredFile]:
    try:
        yield from storage.match(pattern)
    except (OSError, ValueError) as error:
        raise _unreadable(pattern, error) from error


def _match_pattern(
    pattern: str, options: InputOptions, wanted: PathFilter, own: OwnDirectories, left_out: Counter[str]
) -> Iterable[InputFile]:
    if next(_matches(pattern), None) is None:
        if has_glob(pattern) or pattern.endswith("/") or next(_matches(pattern + "/"), None) is None:
            raise UsageError(f"--input {pattern!r} matches no file")
        pattern += "/"  # a directory in a bucket
    if options.input_format == IMAGES or (options.input_format == _AUTO and _has_images(pattern, wanted)):
        _check_images(pattern, wanted)
        if own.could_match(pattern):
            raise _is_among(pattern, own)
        return [InputFile(pattern, IMAGES)]
    start = len(fixed_start(pattern))
    matches = [
        match
        for match in _matches(pattern)
        if not _hidden(match.path[start:]) and _is_wanted(match.path[start:], wanted)
    ]
    if not matches:
        asked = " that --include and --exclude accept" if wanted != PathFilter() else ""
        raise UsageError(f"--input {pattern!r} matches no file{asked}")
    if any(own.hold(match.path) for match in matches):
        raise _is_among(pattern, own)
    formats = _formats([match.path for match in matches], options.input_format)
    if options.input_format == _AUTO:
        formats = _without_documents(formats, left_out)
    archives = [path for path, kind in formats.items() if kind in ARCHIVES]
    if archives and len(archives) < len(formats):
        other = next(path for path, kind in formats.items() if kind not in ARCHIVES)
        raise UsageError(
            f"--input {pattern!r} holds archives and other files, such as {other}; select one kind, for example with "
            "--include '*.tar'"
        )
    if options.input_format == _AUTO and IMAGES in formats.values():  # by content, not by name
        others = [path for path, kind in formats.items() if kind not in (IMAGES, "binary")]
        if others:
            raise _ambiguous(pattern, others[0])
        return [InputFile(pattern, IMAGES)]
    files = [InputFile(m.path, formats[m.path], m.size, m.version) for m in matches if m.path in formats]
    return [_checked(file, options.input_format) for file in files]


def _without_documents(formats: dict[str, str], left_out: Counter[str]) -> dict[str, str]:
    """Drops and counts documents; returns all files if nothing else is left."""
    has_data = any(kind == "parquet" or kind in ARCHIVES or kind in TABLES for kind in formats.values())
    kept = {path: kind for path, kind in formats.items() if not is_document(path, kind, beside_data=has_data)}
    if not kept:
        return formats
    left_out[DOCUMENT] += len(formats) - len(kept)
    return kept


def _is_wanted(path: str, wanted: PathFilter) -> bool:
    return wanted.wants_archive(path) if is_archive_name(path) else wanted.wants(path)


def _has_images(pattern: str, wanted: PathFilter) -> bool:
    """Whether the name of a matching file is that of an image.

    Raises:
      UsageError: some of the files hold images or references themselves.
    """
    start = len(fixed_start(pattern))
    has_images, container = False, None
    for number, file in enumerate(_matches(pattern)):
        path = file.path[start:]
        if has_images and (container or number >= _LOOKED_AT):
            break
        if not wanted.wants(path):
            continue
        kind = kind_by_name(path)
        has_images = has_images or kind is FileKind.IMAGE
        if kind is not FileKind.HIDDEN and path.lower().endswith(_CONTAINERS):
            container = file.path
    if has_images and container:
        raise _ambiguous(pattern, container)
    return has_images


def _ambiguous(pattern: str, other: str) -> UsageError:
    return UsageError(
        f"--input {pattern!r} holds images and other inputs, such as {other}; select one kind with --input_format, "
        "--include or --exclude"
    )


def _check_images(pattern: str, wanted: PathFilter) -> None:
    """Refuses a pattern that matches no image."""
    left_out = Counter[str]()
    try:
        for place in listed(pattern, wanted):
            if isinstance(place, Found):
                return
            assert isinstance(place, LeftOut)
            left_out[place.cause or ""] += 1
    except (OSError, ValueError) as error:
        raise _unreadable(pattern, error) from error
    causes = ", ".join(f"{count} {cause}" for cause, count in sorted(left_out.items()))
    raise UsageError(f"--input {pattern!r}: none of its files is an image ({causes})")


def _is_among(pattern: str, own: OwnDirectories) -> UsageError:
    return UsageError(
        f"--output {own.paths[0]!r} is among the files that --input {pattern!r} names; use another directory"
    )


def _hidden(below: str) -> bool:
    """Whether a part of the path starts with ``_`` or ``.``, which Hive and Spark hide."""
    return any(part.startswith(("_", ".")) for part in below.split("/"))


def _sidecars(formats: Mapping[str, str]) -> set[str]:
    """Files other than images that were named together with images of their directory, as a shell's ``*`` does."""
    directories = {path.rpartition("/")[0] for path, kind in formats.items() if kind == IMAGES}
    found = {
        path
        for path, kind in formats.items()
        if kind != IMAGES
        and path.rpartition("/")[0] in directories
        and kind_by_name(path.rpartition("/")[2]) is not FileKind.IMAGE
        and not path.lower().endswith(_CONTAINERS)
    }
    for path in found:
        if may_be_list(path) and not _are_all_named(path.rpartition("/")[0], formats):
            raise UsageError(
                f"--input {path!r} is named beside images of its directory and may be a list; label it in a separate "
                "run, or leave it out"
            )
    return found


def _are_all_named(directory: str, named: Container[str]) -> bool:
    """Whether all files of a directory are named, as by a shell's ``*``."""
    start = len(directory) + 1
    files = _matches(storage.escape(directory) + "/*")
    return all(file.path in named or file.path[start:].startswith(".") for file in files)


def _cause(path: str) -> str:
    kind = kind_by_name(path.rpartition("/")[2])
    return FileKind.HIDDEN.value if kind is FileKind.HIDDEN else FileKind.OTHER.value


def _formats(paths: list[str], wanted: str) -> dict[str, str]:
    """The format of each file; ``binary`` if it has none."""
    return dict(zip(paths, in_threads(lambda path: _format(path, wanted), paths), strict=True))


def _checked(file: InputFile, wanted: str) -> InputFile:
    """Returns the file if it has the wanted format.

    Raises:
      UsageError: it has another format, or none.
    """
    if isinstance(file.format, Unclear):
        raise UsageError(f"--input: {public_uri(file.path)} {file.format}")
    if file.format == "binary" or wanted not in (_AUTO, file.format):
        kind = {"binary": _NO_INPUT, IMAGES: "an image"}.get(file.format, file.format)
        asked = "" if wanted == _AUTO else f", not {wanted} as in --input_format"
        raise UsageError(f"--input: {public_uri(file.path)} is {kind}{asked}")
    return file


def _format(path: str, wanted: str) -> str:
    if wanted == IMAGES:
        return IMAGES  # a file of any other kind fails with a reason
    kind = _sniff(path, wanted)
    name = path.rpartition("/")[2]
    if kind == "text" and wanted == _AUTO and name.lower().endswith(".parquet"):
        return Unclear("has a Parquet name but is not Parquet; --input_format text reads each line as a URI")
    # A broken photograph is still an image, and fails with a reason.
    if kind == "image" or (wanted == _AUTO and kind_by_name(name) is FileKind.IMAGE):
        return IMAGES
    if kind == "text":
        return _table_kind(path) if wanted == _AUTO else wanted if wanted in ("text", *TABLES) else kind
    return kind


def _table_kind(path: str) -> str:
    try:
        return table_kind(path)
    except ValueError:
        return table_by_name(path) or "text"  # damaged; the reader reports it
    except OSError as error:
        raise _unreadable(path, error) from error


def _sniff(path: str, wanted: str) -> str:
    try:
        with storage.open_input(path) as file:
            if not file.seekable():
                raise UsageError(f"--input {path!r} is a pipe; write it to a file first")
            head = storage.read_range(file, 0, HEAD_BYTES)
    except OSError as error:
        if not is_user_error(error):
            raise
        raise UsageError(f"--input {path!r} cannot be read: {error}") from error
    kind = content_format(head)
    if is_compressed_tar(head, path) or (path.lower().endswith(".tar") and not head.strip(b"\0") and head):
        return TAR  # the latter has no member
    if kind == ZIP and wanted != ZIP and _is_other_zip(path):
        return "binary"
    if kind == "binary" and wanted in (TAR, ZIP):
        return wanted  # a zip may start with a program that unpacks it, and the start of a tar may be damaged
    if kind in ("binary", "text") and wanted == _AUTO and head:
        return _archive_by_name(path) or kind
    return kind


def _archive_by_name(path: str) -> str | None:
    """The archive kind by name of a file with other content, such as an error page, so that it fails as an archive."""
    name = path.lower()
    return ZIP if name.endswith(".zip") else TAR if name.endswith(TAR_ENDINGS) else None


def _is_other_zip(path: str) -> bool:
    """Whether the name is that of another format that uses zip inside, such as .docx and .npz."""
    is_other = kind_by_name(path.rpartition("/")[2]) is FileKind.OTHER
    return is_other and not path.lower().endswith(".zip")
