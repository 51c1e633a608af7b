"""The limit of a reference's length: a list of some kilobytes, in gzip or a dictionary, can hold one of gigabytes."""

from __future__ import annotations

from beamlabel.transforms.records import Failure, Reason, Stage

MAX_URI_BYTES = 64 << 10
"""The longest reference, as UTF-8. Servers accept 8 KB, object stores names of 1 KB, and Linux paths of 4 KB."""

# A character takes at most four bytes.
_SURE = MAX_URI_BYTES // 4


def too_many_bytes(uri: str) -> int | None:
    """The bytes of a URI that is too long; None if it is not."""
    if len(uri) <= _SURE:
        return None
    size = len(uri.encode("utf-8", "surrogatepass"))
    return size if size > MAX_URI_BYTES else None


def too_long(size: int) -> str:
    """The error message for a URI of so many bytes."""
    return f"the URI has {size} bytes, more than the limit of {MAX_URI_BYTES}"


def too_long_failure(size: int, ref_id: str, row: int, unit_id: str) -> Failure:
    """The outcome of a row whose URI is too long.

    It does not hold the URI, because a part of it might end inside a password.
    """
    return Failure(None, ref_id, Stage.OPEN, Reason.URI_TOO_LONG, too_long(size), row, unit_id)
