"""Finds the columns of a file that hold images and classes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from beamlabel.pipeline.errors import UsageError

# Names of columns with images, by priority, and of columns with classes; upper and lower case are equal.
KEY_COLUMNS = ("ref_id", "image_id", "uri", "url", "path", "file", "filename", "file_name")
CLASS_COLUMNS = ("truth", "class_id", "class", "label")
_NAMES_OF_FILES = frozenset(("file", "filename", "file_name"))
# Columns that the report of a run exports: the reviewer's class, or the prediction if it is right.
CORRECTION_COLUMNS = ("verdict", "label")


@dataclass(frozen=True)
class FileColumns:
    """The columns of a truth.

    Attributes:
      key, value: names of columns.
      kind: how the image is named: ``ref_id``, ``image_id``, ``uri``, or ``file``, which is a name without directory.
      verdict: for corrections, the column that tells whether the prediction was right.
    """

    key: str
    value: str
    kind: str
    verdict: str | None = None


def find_columns(names: Sequence[str], key: str | None, value: str | None, path: str) -> FileColumns:
    """The columns of a file, from the options or by their names.

    Args:
      names: names of all columns.
      key, value: values of ``--truth_key`` and ``--truth_column``.
      path: file name for messages.

    Raises:
      UsageError: the columns cannot be determined.
    """
    listing = ", ".join(names) or "none"
    for option, name in (("--truth_key", key), ("--truth_column", value)):
        if name is not None and name not in names:
            raise UsageError(f"{option} {name}: no such column; {path} has the columns {listing}")
    twice = [name for name in names if names.count(name) > 1]
    found_key = key or _first_named(KEY_COLUMNS, [name for name in names if name != value])
    if found_key is None:
        wanted = ", ".join(KEY_COLUMNS[:-1]) + f" or {KEY_COLUMNS[-1]}"
        raise UsageError(
            f"--truth {path!r}: no column is named {wanted}; columns: {listing}; name the column of images with "
            "--truth_key"
        )
    others = [name for name in names if name != found_key]
    verdict = _first_named(("verdict",), others)
    if verdict is not None and value is None and (label := _first_named(("label",), others)):
        return FileColumns(found_key, label, _kind(found_key), verdict)
    found = value or _first_named(CLASS_COLUMNS, others)
    if not others:
        raise UsageError(f"--truth {path!r}: no column holds classes; the only column is {listing}")
    if found is None and len(others) != 1:
        raise UsageError(
            f"--truth {path!r}: name the column of classes with --truth_column; columns: {listing}"
        )
    found = found or others[0]
    if found in twice or found_key in twice:
        raise UsageError(f"--truth {path!r}: two columns have the name {twice[0]!r}")
    return FileColumns(found_key, found, _kind(found_key))


def is_header(names: Sequence[str], key: str | None, value: str | None) -> bool:
    """Whether the first line of a file contains known or given column names."""
    return _first_named(KEY_COLUMNS, names) is not None or key in names or value in names


def _first_named(wanted: Sequence[str], names: Sequence[str]) -> str | None:
    by_text: dict[str, str] = {}
    for name in names:
        by_text.setdefault(name.strip().lower(), name)
    return next((by_text[name] for name in wanted if name in by_text), None)


def _kind(key: str) -> str:
    name = key.strip().lower()
    if name in ("ref_id", "image_id"):
        return name
    return "file" if name in _NAMES_OF_FILES else "uri"
