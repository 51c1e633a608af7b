"""Beam's worker pool as a process of its own: what ``--environment_type EXTERNAL`` names."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def worker_pool(path: Path, folder: Path, env: Mapping[str, str] | None = None) -> Iterator[str]:
    """A pool whose workers import ``beamlabel`` from a path.

    Args:
      path: what is first on the workers' ``PYTHONPATH``.
      folder: where they run, and what they say is written to ``workers.log``.
      env: more of their environment.

    Yields:
      Its address, for ``--environment_config``.
    """
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    # The pool starts whatever is called python.
    search = os.pathsep.join((str(Path(sys.executable).parent), os.environ["PATH"]))
    with (folder / "workers.log").open("w") as log:
        pool = subprocess.Popen(
            [sys.executable, "-m", "apache_beam.runners.worker.worker_pool_main", f"--service_port={port}"],
            stdout=log, stderr=log, cwd=folder,
            env={**os.environ, "PYTHONPATH": str(path), "PATH": search, **(env or {})},
        )  # fmt: skip
    try:
        while True:
            assert pool.poll() is None, (folder / "workers.log").read_text()
            try:
                socket.create_connection(("127.0.0.1", port), timeout=1).close()
                break
            except OSError:
                time.sleep(0.1)
        yield f"127.0.0.1:{port}"
    finally:
        pool.send_signal(signal.SIGINT)  # at which it stops its workers
        pool.wait(30)
