"""Reads the JSON files of an output, and checks that their values have the types that the readers expect."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

from beamlabel.pipeline.errors import UsageError
from beamlabel.transforms import storage
from beamlabel.transforms.rows import metadata_keys
from beamlabel.transforms.shapes import (
    COUNT,
    DATE,
    DIGITS,
    ENGINES,
    FILE_RECORD,
    FLAG,
    NUMBER,
    OBJECT,
    SECONDS,
    TEXT,
    UNIT_RECORD,
    UTF8,
    ShapeError,
    all_of,
    check,
    each,
    optional,
    parse,
)
from beamlabel.transforms.storage.errors import is_user_error
from beamlabel.transforms.worker import metrics as names

_Row = TypeVar("_Row")
# Errors of readers for values of wrong types, and of pyarrow for damaged files.
DAMAGE = (ValueError, TypeError, LookupError, AttributeError, ArithmeticError, RuntimeError)


class DamagedError(UsageError, ValueError):
    """A file of ours holds values that we never write; the message names it."""


_OPTIONS = {
    "input?": [TEXT],
    "report?": FLAG,
    "max_error_rate": NUMBER,
    "min_failures?": COUNT,
    "max_deleted_rate?": NUMBER,
    "keep_columns?": [TEXT],
    "skip_labeled?": optional([TEXT]),
    "run_date?": optional(TEXT),
}
_METADATA = all_of(
    each(UTF8),
    {
        f"{name}?": DIGITS
        for name in (metadata_keys.NUM_CLASSES, metadata_keys.EMBEDDING_DIM, metadata_keys.TOP_K)
    },
)
_OF_JOB: dict[str, Any] = {
    "run_id": UTF8,
    "plan_id": UTF8,
    "module": {"fingerprint": UTF8},
    "preprocessing?": OBJECT,
    "metadata": _METADATA,
    "labeled_at?": optional(COUNT),
    "options": _OPTIONS,
    "kept_columns?": each(UTF8),
    "input_files": [{"path": TEXT, "format": TEXT, "size?": optional(COUNT), "version?": optional(TEXT)}],
    "versions?": each(TEXT),
    "retried_failures?": COUNT,
    "resumed_units?": COUNT,
    "compacted?": OBJECT,
}

MANIFEST = {
    **_OF_JOB,
    "output": TEXT,
    "rows": {"input": COUNT, "predicted": COUNT, "failed": COUNT, "skipped": COUNT},
    "conserved": FLAG,
    "complete?": FLAG,
    "skipped_by_reason?": each(COUNT),
    "left_out?": each(COUNT),
    "rows_relabeled?": COUNT,
    "failed_by_reason": each(COUNT),
    "error_rate": NUMBER,
    "within_error_rate": FLAG,
    "within_deleted_rate?": FLAG,
    "deleted?": COUNT,
    "tombstones?": {"live": COUNT, "gone": COUNT},
    "started_at": DATE,
    "committed_at": DATE,
    "seconds": NUMBER,
    "seconds_to_first_label?": optional(NUMBER),
    "files": [
        {
            "name": TEXT,
            "kind": TEXT,
            "rows": COUNT,
            "bytes": COUNT,
            "sha256": TEXT,
            "staged_as": TEXT,
            "computed_by?": optional(ENGINES),
            "started_at?": DATE,
            "finished_at?": DATE,
        }
    ],
}

# Before everything is staged, it only identifies the owner of the directory.
JOB = {
    "format": TEXT,
    "detached?": optional(TEXT),
    "run_id": TEXT,
    "started_at": SECONDS,
    "max_error_rate": NUMBER,
    "min_failures?": COUNT,
    "min_input?": optional(COUNT),
    "schema_pbtxt": optional(TEXT),
    "left_out?": each(COUNT),
    "skipped_by_reason?": optional(each(COUNT)),
    "manifest": _OF_JOB,
}

COMMIT = {
    "format": TEXT,
    "plan_id?": TEXT,
    "committed_at": SECONDS,
    "records": [UNIT_RECORD],
    "deleted?": [FILE_RECORD],
    "tombstones?": {"live": COUNT, "gone": COUNT},
}

MOVES = {"moves": each(TEXT), "deletes": [TEXT]}

UNITS = {"format": TEXT, "records": [UNIT_RECORD]}

METRICS = {f"{names.NAMESPACE}?": {f"{names.PREDICTED_AT_MSEC}?": optional({"min": NUMBER})}}

LOCK = {"host": TEXT, "pid": COUNT, "started_at": SECONDS, "system": TEXT, "ticks": COUNT}

# A line of a failure file, as far as outcomes of images depend on it.
OUTCOME = {
    "uri?": optional(UTF8),
    "ref_id?": optional(UTF8),
    "reason": UTF8,
    "image_id?": optional(UTF8),
    "detail?": optional(UTF8),
    "stage?": optional(UTF8),
    "failed_at?": UTF8,
    "source_bytes?": optional(COUNT),
    "source_version?": optional(UTF8),
    "content_hash?": optional(UTF8),
}

# A line of a failure file.
FAILURE = {**OUTCOME, "ref_id": UTF8}

# A line of a file of images with a new version but the same content.
UNCHANGED = {
    "image_id": UTF8,
    "source_bytes": optional(COUNT),
    "source_version": optional(UTF8),
    "content_hash": optional(UTF8),
    "seen_at?": UTF8,
}


def read_json(path: str, shape: Any) -> Any:
    """Reads a JSON file of ours.

    Args:
      path: of the file.
      shape: one of the constants above.

    Raises:
      DamagedError: it has another shape.
      OSError: it cannot be read.
    """
    return parsed(path, storage.read_bytes(path), shape)


def parsed(path: str, data: bytes, shape: Any) -> Any:
    """Parses the content of a file, see ``read_json``."""
    try:
        return parse(data, shape)
    except ShapeError as error:
        raise DamagedError(f"{path} is damaged: {error}") from error


def checked(path: str, value: Any, shape: Any) -> Any:
    """Checks parsed JSON, see ``read_json``."""
    try:
        check(value, shape)
    except ShapeError as error:
        raise DamagedError(f"{path} is damaged: {error}") from error
    return value


@contextmanager
def reading(path: str) -> Iterator[None]:
    """Names the file in the errors of a block that reads rows from a file of an output.

    Raises:
      DamagedError: the file is damaged, holds values of other types than ours, or is no file.
      OSError: the storage failed.
    """
    try:
        yield
    except (UsageError, ImportError):
        raise
    except OSError as error:
        if not is_user_error(error):
            raise
        raise DamagedError(f"{path} cannot be read: {error}") from error
    except DAMAGE as error:
        raise DamagedError(f"{path} is damaged: {type(error).__name__}: {error}") from error


def rows_of(path: str, rows: Iterable[_Row]) -> Iterator[_Row]:
    """Yields the rows that a generator reads from a file, see ``reading``."""
    with reading(path):
        yield from rows
