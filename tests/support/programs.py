"""Programs that serve on a port of the loopback while a test runs."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def serving(command: Sequence[str | Path], port: int, log: Path, env: Mapping[str, str]) -> Iterator[None]:
    """Runs a program from when it listens; SIGINT stops it.

    Args:
      command: the program, and its arguments.
      port: where it will listen.
      log: the file for what it says; it runs in that folder.
      env: what its environment has beside this process's.
    """
    with log.open("w") as said:
        program = subprocess.Popen(
            command, stdout=said, stderr=said, cwd=log.parent, env={**os.environ, **env}
        )
    try:
        while True:
            assert program.poll() is None, log.read_text()
            try:
                socket.create_connection(("127.0.0.1", port), timeout=1).close()
                break
            except OSError:
                time.sleep(0.1)
        yield
    finally:
        program.send_signal(signal.SIGINT)
        program.wait(30)
