"""``import apache_beam`` in about half the time, in the command's own process, for a run on this machine.

If they are installed, Beam imports pandas for its DataFrames, the clients of BigQuery, Pub/Sub, Dataflow and MongoDB
for its connectors, and those of Google, AWS and Azure for its file systems: more than half of the modules that a run
imports (``benchmarks/profile.md``). A local run needs none of the connectors, and ``beam_setup.filesystems`` imports
the file systems if a path needs one. PyArrow imports pandas for its first array, and Beam imports IPython to ask
whether this is a notebook: for both, the module is hidden.

This is for a process that runs nothing but the labeling job. So only the command (``beamlabel.pipeline.run.main``) uses
it; a pipeline that imports beamlabel gets Beam unchanged.
"""

from __future__ import annotations

import importlib.util
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

from beamlabel.transforms.storage.beam_setup import FILE_SYSTEMS

# Optional imports of Beam and their dependencies. A connector without them reports that when it is used.
_CONNECTORS = frozenset(
    {
        "apache_beam.io.gcp.bigquery",
        "apitools",
        "bson",
        "google.cloud.bigquery",
        "google.cloud.bigquery_storage_v1",
        "google.cloud.dataflow",
        "google.cloud.pubsub",
        "pandas",
        *FILE_SYSTEMS,
    }
)


def leave_out_connectors(runner_args: Sequence[str]) -> None:
    """Makes the first ``import apache_beam`` of this process skip Beam's connectors, and PyArrow skip pandas.

    Does nothing if Beam is already imported, or if the arguments name a runner. Call it only in a process of your own,
    because nothing in it can use the connectors, IPython, or PyArrow's ``to_pandas`` afterwards. Everything else can be
    imported before and after.
    """
    if "apache_beam" in sys.modules or names_runner(runner_args):
        return
    sys.meta_path.insert(0, _BeamFinder())
    # None makes Python report the module as missing.
    sys.modules.setdefault("IPython", None)  # type: ignore[arg-type]
    with _hidden(frozenset({"pandas"})):
        import pyarrow as pa

        pa.array([0])  # PyArrow looks for pandas once


def names_runner(runner_args: Sequence[str]) -> bool:
    """Whether the arguments name a runner, which may be a remote one."""
    return any(argument.split("=", 1)[0] == "--runner" for argument in runner_args)


class _BeamFinder(MetaPathFinder):
    """Finds Beam once with the other finders, and replaces its loader by one that hides the connectors."""

    def find_spec(self, fullname: str, path: Any = None, target: Any = None) -> ModuleSpec | None:
        if fullname != "apache_beam":
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(fullname)
        if spec is not None and spec.loader is not None:
            spec.loader = _LeanLoader(spec.loader)
        return spec


class _LeanLoader(Loader):
    """Loads a module with another loader while the connectors are hidden."""

    def __init__(self, loader: Loader) -> None:
        self._loader = loader

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        return self._loader.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        # From here on, the module is the same as without this loader.
        module.__loader__ = self._loader
        if module.__spec__ is not None:
            module.__spec__.loader = self._loader
        with _hidden(_CONNECTORS):
            self._loader.exec_module(module)


class _Hiding(MetaPathFinder):
    """Reports some modules as not installed, only to the thread that created it."""

    def __init__(self, names: frozenset[str]) -> None:
        self._names = names
        self._thread = threading.get_ident()

    def find_spec(self, fullname: str, path: Any = None, target: Any = None) -> None:
        if fullname in self._names and threading.get_ident() == self._thread:
            raise ModuleNotFoundError(f"{fullname} is left out for a local run", name=fullname)


@contextmanager
def _hidden(names: frozenset[str]) -> Iterator[None]:
    finder = _Hiding(names - sys.modules.keys())
    sys.meta_path.insert(0, finder)
    try:
        yield
    finally:
        sys.meta_path.remove(finder)
