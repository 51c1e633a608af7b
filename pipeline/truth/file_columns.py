"""Which column of a file names the image, and which its class."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from beamlabel.pipeline.errors import UsageError

# Columns of these names say which image a row is of, in this order, and which class, in any case of letters.
KEY_COLUMNS = ("ref_id", "image_id", "uri", "url", "path", "file", "filename", "file_name")
CLASS_COLUMNS = ("truth", "class_id", "class", "label")
_NAMES_OF_FILES = frozenset(("file", "filename", "file_name"))
# What the report of a run exports: the truth is what the person says, of a right prediction the prediction.
CORRECTION_COLUMNS = ("verdict", "label")


@dataclass(frozen=True)
class FileColumns:
    """The columns of a truth.

    Attributes:
      key, value: names of columns.
      kind: how the image is named: ``ref_id``, ``image_id``, ``uri``, or ``file``: a name alone has no folder.
      verdict: of corrections, the column that tells whether the prediction was right.
    """

    key: str
    value: str
    kind: str
    verdict: str | None = None


def find_columns(names: Sequence[str], key: str | None, value: str | None, path: str) -> FileColumns:
    """The columns of a file, by the options or by their names.

    Args:
      names: of all columns.
      key, value: what ``--truth_key`` and ``--truth_column`` say.
      path: for messages.

    Raises:
      UsageError: they cannot be told.
    """
    listing = ", ".join(names) or "none"
    for option, name in (("--truth_key", key), ("--truth_column", value)):
        if name is not None and name not in names:
            raise UsageError(f"{option} {name}: {path} has the columns {listing}")
    twice = [name for name in names if names.count(name) > 1]
    found_key = key or _first_named(KEY_COLUMNS, [name for name in names if name != value])
    if found_key is None:
        wanted = ", ".join(KEY_COLUMNS[:-1]) + f" or {KEY_COLUMNS[-1]}"
        raise UsageError(
            f"--truth {path!r}: no column of it names the image: {wanted}; it has {listing}; give its name by "
            "--truth_key"
        )
    others = [name for name in names if name != found_key]
    verdict = _first_named(("verdict",), others)
    if verdict is not None and value is None and (label := _first_named(("label",), others)):
        return FileColumns(found_key, label, _kind(found_key), verdict)
    found = value or _first_named(CLASS_COLUMNS, others)
    if not others:
        raise UsageError(f"--truth {path!r}: it has no column of classes, only {listing}")
    if found is None and len(others) != 1:
        raise UsageError(f"--truth {path!r}: name the column of classes by --truth_column; it has {listing}")
    found = found or others[0]
    if found in twice or found_key in twice:
        raise UsageError(f"--truth {path!r}: two columns have the name {twice[0]!r}")
    return FileColumns(found_key, found, _kind(found_key))


def is_header(names: Sequence[str], key: str | None, value: str | None) -> bool:
    """Whether the first line of a file has names of columns that are known, or given."""
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
