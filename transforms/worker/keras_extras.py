"""Leaves out the packages that Keras imports for its plots and wrappers, in processes that use neither.

``import tensorflow`` imports Keras, and Keras imports these packages if they are installed, which takes a third of the
time. Without them, Keras behaves as in an environment in which they are not installed.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager

_EXTRAS = frozenset({"IPython", "matplotlib", "sklearn"})
_is_own_process = False


class _NotInstalled:
    """A finder of modules by which these packages are not installed."""

    @staticmethod
    def find_spec(name: str, path: object = None, target: object = None) -> None:
        if name.partition(".")[0] in _EXTRAS:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)


def leave_out_keras_extras() -> None:
    """Makes ``without_keras_extras`` effective; only for a process of beamlabel's own, since users may need them."""
    global _is_own_process
    _is_own_process = True


@contextmanager
def without_keras_extras() -> Iterator[None]:
    """Imports within it do not find these packages, in a process of beamlabel's own."""
    if not _is_own_process:
        yield
        return
    sys.meta_path.insert(0, _NotInstalled)
    try:
        yield
    finally:
        sys.meta_path.remove(_NotInstalled)
