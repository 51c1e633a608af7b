"""The schemes whose images may be fetched."""

from __future__ import annotations

import re

LOCAL = "file"
"""The scheme that stands for local paths."""

_SCHEME = re.compile(r"[a-z][a-z0-9+.-]*")


def check_schemes(schemes: tuple[str, ...] | None) -> None:
    """Checks a list of one or more scheme names.

    Raises:
      ValueError: The list is empty or invalid; the message names ``allowed_schemes``.
    """
    if schemes is None:
        return
    is_list = isinstance(schemes, tuple) and schemes
    if not is_list or not all(isinstance(one, str) and _SCHEME.fullmatch(one) for one in schemes):
        raise ValueError(
            f"allowed_schemes must be scheme names in lower case, such as gs, https, and {LOCAL} for local paths, "
            f"not {schemes!r}"
        )


def not_allowed(kind: str) -> str:
    """The message for a location whose scheme is not allowed."""
    where = "local paths" if kind == LOCAL else f"the scheme {kind!r}"
    return f"--allowed_schemes does not include {where}"
