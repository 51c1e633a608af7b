"""Counts requests to a bucket: ``python benchmarks/requests.py [ROW ...] [--before CHECKOUT]``.

Each row is one step of a run on ``gs://``, measured on the tests' GCS server, which counts requests and bytes and waits
50 ms before each answer. The code of this checkout is measured and, with ``--before``, that of another (``git worktree
add CHECKOUT COMMIT``). Prints a table in Markdown. Requests and bytes are the same on every machine; seconds differ,
because the server shares the cores.

A row is a function of a ``Bench`` with the decorator ``row("its description")``. It prepares the bucket, runs the code
in a separate process and returns its figures.
"""

from __future__ import annotations

import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent


def _give_way() -> None:
    """Loads the library of the same name instead of this file.

    This directory is the first on the path of every program in it, and libraries import ``requests``.
    """
    from importlib.machinery import PathFinder
    from importlib.util import module_from_spec

    elsewhere = [entry for entry in sys.path if Path(entry or ".").resolve() != HERE]
    spec = PathFinder.find_spec(__name__, elsewhere)
    if spec is None or spec.loader is None:
        raise ModuleNotFoundError(f"No module named {__name__!r}", name=__name__)
    sys.modules[__name__] = module_from_spec(spec)
    spec.loader.exec_module(sys.modules[__name__])


if __name__ == "requests":
    _give_way()
else:
    sys.path.insert(0, str(HERE.parent / "tests"))
    from bucket_rows import main

    if __name__ == "__main__":
        main()
