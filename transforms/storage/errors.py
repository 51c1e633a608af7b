"""Whether an error is the user's, who named what is not there, or the storage's, which may do better next time."""

from __future__ import annotations

_MISTAKES = (
    ValueError,
    ImportError,
    FileNotFoundError,
    PermissionError,
    IsADirectoryError,
    NotADirectoryError,
    FileExistsError,
)


def is_mistake(error: BaseException) -> bool:
    """Whether trying again without a change would fail again."""
    return isinstance(error, _MISTAKES)


class ChecksumError(ValueError):
    """A file holds other bytes than were staged."""
