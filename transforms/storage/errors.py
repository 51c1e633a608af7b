"""User errors, such as a missing file, as opposed to storage errors that another try may not meet."""

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
# Error numbers without a class of their own.
_USER_NUMBERS = (errno.EROFS, errno.ENAMETOOLONG, errno.ELOOP)


def is_user_error(error: BaseException) -> bool:
    """Whether a retry without a change would fail again."""
    if isinstance(error, OSError) and error.errno in _USER_NUMBERS:
        return True
    return isinstance(error, _USER_ERRORS)


class ChecksumError(ValueError):
    """The SHA-256 of a file differs from the staged file's."""


class ReplacedError(FileNotFoundError):
    """The file no longer has the requested version."""
