"""Stops the job servers that Beam starts for a runner at the end of the job.

Beam stops them only when Python ends. The command cannot wait for that, because Python first waits for every thread,
and those of a cancelled job may be busy for minutes.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from beamlabel.transforms.secrets.logs import get_logger

_LOGGER = get_logger("beamlabel")


@contextmanager
def job_servers_stopped(runner: Any) -> Iterator[None]:
    """Stops the job servers that a Beam runner has started within the context.

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
            except Exception as error:  # the job's outcome is known, and more important
                _LOGGER.warning("Could not stop a job server: %s", error)
