"""Beam's worker pool in a separate process, for ``--environment_type EXTERNAL``."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from support.programs import serving
from support.servers import free_port


@contextmanager
def worker_pool(path: Path, directory: Path, env: Mapping[str, str] | None = None) -> Iterator[str]:
    """A pool whose workers import ``beamlabel`` from a path.

    Args:
      path: The first entry of the workers' ``PYTHONPATH``.
      directory: The working directory of the workers, which also gets their log, ``workers.log``.
      env: Further environment variables of the workers.

    Yields:
      The pool's address for ``--environment_config``.
    """
    port = free_port()
    # The pool starts the first program named python.
    search = os.pathsep.join((str(Path(sys.executable).parent), os.environ["PATH"]))
    command = [sys.executable, "-m", "apache_beam.runners.worker.worker_pool_main", f"--service_port={port}"]
    variables = {"PYTHONPATH": str(path), "PATH": search, **(env or {})}
    with serving(command, port, directory / "workers.log", variables):  # SIGINT stops its workers, too
        yield f"127.0.0.1:{port}"
