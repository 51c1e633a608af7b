"""The job servers that Beam starts beside this process for a runner: stopped when the job is over.

Beam stops them when Python ends. The command cannot wait for that: Python first waits for every thread, and those
of a cancelled job may be busy for minutes.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from beamlabel.transforms.secrets.logs import get_logger

_LOGGER = get_logger("beamlabel")


@contextmanager
def job_servers_stopped(runner: Any) -> Iterator[None]:
    """Stops, at the end, the job servers that a runner of Beam's has started meanwhile.

    Args:
      runner: a ``PipelineRunner``. One without ``default_job_server`` starts none.
    """
    started: list[Any] = []
    make = getattr(runner, "default_job_server", None)
    if make is not None:

        def default_job_server(*arguments: Any) -> Any:
            started.append(make(*arguments))
            return started[-1]

        runner.default_job_server = default_job_server
    try:
        yield
    finally:
        for server in started:
            try:
                server.stop()
            except Exception as error:  # the job's outcome is known, and counts for more
                _LOGGER.warning("a job server could not be stopped: %s", error)
