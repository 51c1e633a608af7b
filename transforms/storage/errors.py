"""Whether an error is the user's, who named what is not there, or the storage's, which may do better next time."""

from __future__ import annotations

import errno

from beamlabel.transforms.storage.disk.regular_file import NotAFileError as NotAFileError

_USER_ERRORS = (
    NotAFileError,
    ValueError,
    ImportError,
    FileNotFoundError,
    PermissionError,
    IsADirectoryError,
    NotADirectoryError,
    FileExistsError,
)
# Those that have no class of their own.
_USER_NUMBERS = (errno.EROFS, errno.ENAMETOOLONG, errno.ELOOP)


def is_user_error(error: BaseException) -> bool:
    """Whether trying again without a change would fail again."""
    if isinstance(error, OSError) and error.errno in _USER_NUMBERS:
        return True
    return isinstance(error, _USER_ERRORS)


class ChecksumError(ValueError):
    """A file holds other bytes than were staged."""


class ReplacedError(FileNotFoundError):
    """The file is no longer of the version that was asked for."""
