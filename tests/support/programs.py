"""Programs that serve on a loopback port during a test."""

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
    """Runs a program, waits until it listens, and stops it with SIGINT.

    Args:
      command: The program and its arguments.
      port: The port on which it will listen.
      log: The file for its output; the program runs in the file's directory.
      env: Environment variables beyond those of this process.
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
