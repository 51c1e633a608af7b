"""When a detached job is handed over: before that, it would be gone with the job server that we started."""

from __future__ import annotations

import time
from typing import Any

from apache_beam.options.pipeline_options import GoogleCloudOptions, PortableOptions

from pipeline import flink_rest
from pipeline.cancellation import Cancellation
from pipeline.runners import FLINK, Runner

_POLL_SECONDS = 0.5


class Submission:
    """The submission of a job; made before it begins.

    Args:
      runner: with its options complete.
    """

    def __init__(self, runner: Runner) -> None:
        self._writes_jar = bool(runner.options.view_as(PortableOptions).output_executable_path)
        self._url = flink_rest.cluster_url(runner.options) if runner.kind == FLINK else ""
        self._name = runner.options.view_as(GoogleCloudOptions).job_name
        self._before = flink_rest.jobs(self._url, self._name) if self._url else set()

    def wait(self, result: Any, cancelled: Cancellation) -> None:
        """Returns when Flink has the job, or ``--output_executable_path`` is written.

        Beam's job server answers as soon as it has the graph, and translates and submits it afterwards. One that we
        did not start takes care of that without us.

        Raises:
          RuntimeError: the submission failed.
        """
        while self._url or self._writes_jar:
            cancelled.check()
            state = _state(result)
            if state == "FAILED":
                result.wait_until_finish()  # raises what the job server says
            if state not in ("STARTING", "RUNNING", "STOPPED"):
                return
            if self._url and flink_rest.jobs(self._url, self._name) - self._before:
                return
            time.sleep(_POLL_SECONDS)


def _state(result: Any) -> str:
    try:
        return str(result.state)
    except AttributeError:  # of a detached job, and Beam's Python side has no word for it
        return "UNSPECIFIED"
