"""How long a reference may be: a list of some kilobytes can hold one of gigabytes, in gzip or in a dictionary."""

from __future__ import annotations

from beamlabel.transforms.records import Failure, Reason, Stage

MAX_URI_BYTES = 64 << 10
"""Of a reference, as UTF-8. Servers take 8 KB, object stores names of 1 KB, and Linux paths of 4 KB."""

# A character takes four bytes at the most.
_SURE = MAX_URI_BYTES // 4


def too_many_bytes(uri: str) -> int | None:
    """The bytes of a URI that is too long; None if it is not."""
    if len(uri) <= _SURE:
        return None
    size = len(uri.encode("utf-8", "surrogatepass"))
    return size if size > MAX_URI_BYTES else None


def too_long(size: int) -> str:
    """What is wrong with a URI of so many bytes."""
    return f"{size} bytes, more than the {MAX_URI_BYTES} of the longest URI"


def too_long_failure(size: int, ref_id: str, row: int, unit_id: str) -> Failure:
    """The outcome of a row whose URI is too long. It does not hold the URI: a part of it may end within a password."""
    return Failure(None, ref_id, Stage.OPEN, Reason.URI_TOO_LONG, too_long(size), row, unit_id)
