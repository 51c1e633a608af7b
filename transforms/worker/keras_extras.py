"""Leaves out the packages that Keras imports for its plots and wrappers, in processes that use neither.

``import tensorflow`` imports Keras, and Keras imports these packages if they are installed, which takes a third of the
time. Without them, Keras behaves as if they were not installed.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager

_EXTRAS = frozenset({"IPython", "matplotlib", "sklearn"})
_is_own_process = False


class _NotInstalled:
    """A finder that reports these packages as not installed."""

    @staticmethod
    def find_spec(name: str, path: object = None, target: object = None) -> None:
        if name.partition(".")[0] in _EXTRAS:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)


def leave_out_keras_extras() -> None:
    """Declares this process beamlabel's own; a user's program may need these packages."""
    global _is_own_process
    _is_own_process = True


@contextmanager
def without_keras_extras() -> Iterator[None]:
    """Hides these packages from imports, in a process of beamlabel's own."""
    if not _is_own_process:
        yield
        return
    sys.meta_path.insert(0, _NotInstalled)
    try:
        yield
    finally:
        sys.meta_path.remove(_NotInstalled)
