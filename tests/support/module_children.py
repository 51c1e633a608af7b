"""Keeps the process that loads modules for later uses with the same settings."""

import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from beamlabel.transforms.module_process.process import Child, ModuleProcess
from beamlabel.transforms.storage import beam_setup
from beamlabel.transforms.storage.billing import billing_project

# Variables that differ between tests: pytest's own, and the cache, which the process gets as an argument.
_CHANGING = ("PYTEST_CURRENT_TEST", "BEAMLABEL_CACHE")


class _Kept:
    """At most one idle process, and the settings of its start."""

    def __init__(self) -> None:
        self.child: Child | None = None
        self.key: object = None

    def take(self, key: object) -> Child | None:
        child, self.child = self.child, None
        if child is not None and (not child.is_alive or key != self.key):
            child.kill()
            return None
        return child

    def keep(self, child: Child, key: object) -> None:
        self.take(None)
        self.child, self.key = child, key


def die(number: int) -> None:
    """Ends this process, which loads modules."""
    os.kill(os.getpid(), number)
    time.sleep(60)  # not all signals are there at once


def _key(process: ModuleProcess) -> object:
    environment = {name: value for name, value in os.environ.items() if name not in _CHANGING}
    storage = beam_setup.words(), billing_project()
    return process._limits.memory, environment, Path.cwd(), list(sys.path), storage


@contextmanager
def kept_children() -> Iterator[None]:
    """Reuses a finished process if a new one would start in the same way."""
    kept, alive = _Kept(), ModuleProcess._alive

    def take(self: ModuleProcess) -> Child:
        if self._child is None:
            self._key = _key(self)
            self._child = kept.take(self._key)
        return alive(self)

    def close(self: ModuleProcess) -> None:
        child, self._child = self._child, None
        if child is None:
            return
        if self._lock.locked() or not child.is_alive:  # it was busy
            child.kill()
        else:
            kept.keep(child, self._key)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ModuleProcess, "_alive", take)
        patch.setattr(ModuleProcess, "close", close)
        yield
        kept.take(None)
