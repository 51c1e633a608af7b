"""Controls our job on Flink, where Beam's job server is not enough.

The job server responds as soon as it has the graph, and submits it afterwards, so a detached job would be lost with a
server that we started. After a cancellation, the server only stops waiting for the job, which continues.
"""

from __future__ import annotations

import time
from typing import Any

from apache_beam.options.pipeline_options import FlinkRunnerOptions, GoogleCloudOptions, PortableOptions

from beamlabel.pipeline.process.cancellation import Cancellation
from beamlabel.pipeline.runners import flink_rest
from beamlabel.pipeline.runners.choose import FLINK, PORTABLE, Runner

_POLL_SECONDS = 0.5
# An interrupted submission may still succeed.
_LATE_SECONDS = 3.0
_JOB_SERVER_SECONDS = 5.0
_MASTER = "beam:option:flink_master:v1"


class FlinkJob:
    """One job, created before its submission. It does nothing for runners other than Flink's.

    Args:
      runner: with its options complete.
    """

    def __init__(self, runner: Runner) -> None:
        portable = runner.options.view_as(PortableOptions)
        self._endpoint = portable.job_endpoint if runner.kind in (FLINK, PORTABLE) else None
        self._writes_jar = bool(portable.output_executable_path)
        self._name = runner.options.view_as(GoogleCloudOptions).job_name
        self._url = flink_rest.cluster_url(runner.options.view_as(FlinkRunnerOptions).flink_master)
        if runner.kind not in (FLINK, PORTABLE):
            self._url = ""
        self._before = set(flink_rest.jobs(self._url, self._name))

    def wait_for_submission(self, result: Any, cancelled: Cancellation) -> None:
        """Waits until Flink has the job, or ``--output_executable_path`` is written.

        Returns at once if a job server that we did not start submits the job.

        Raises:
          RuntimeError: the submission failed.
        """
        cancelled.check()
        while self._writes_jar or (self._url and not self._endpoint):
            cancelled.check()
            state = _state(result)
            if state == "FAILED":
                result.wait_until_finish()  # raises the job server's error
            if state not in ("STARTING", "RUNNING", "STOPPED") or self._find()[0]:
                return
            time.sleep(_POLL_SECONDS)

    def cancel(self, seconds: float) -> str:
        """Cancels the job on Flink after its cancellation by the job server, and waits for its end.

        Returns:
          Flink's name for its last state; empty if Flink has no such job, or Flink's address is unknown.

        Raises:
          requests.RequestException: Flink does not answer, or refuses.
        """
        self._url = self._url or self._ask_job_server()
        begin = time.monotonic()
        state, asked = "", False
        while self._url and state not in flink_rest.ENDED and time.monotonic() < begin + seconds:
            job, state = self._find()
            if job and not asked and state not in flink_rest.ENDED:
                flink_rest.cancel(self._url, job)
                asked = True
            if not job and time.monotonic() > begin + _LATE_SECONDS:
                break
            time.sleep(_POLL_SECONDS)
        return state

    def _find(self) -> tuple[str, str]:
        """Id and state of the newest job of our name, which the user may use repeatedly; empty if there is none."""
        jobs = flink_rest.jobs(self._url, self._name)
        new = [(job, state) for job, state in jobs.items() if job not in self._before]
        return new[-1] if new else ("", "")

    def _ask_job_server(self) -> str:
        """The URL of the job server's Flink, which the server adds to the options of its jobs."""
        if not self._endpoint or self._endpoint == "embed":
            return ""
        import grpc
        from apache_beam.portability.api import beam_job_api_pb2, beam_job_api_pb2_grpc

        try:
            with grpc.insecure_channel(self._endpoint) as channel:
                server = beam_job_api_pb2_grpc.JobServiceStub(channel)
                answer = server.GetJobs(beam_job_api_pb2.GetJobsRequest(), timeout=_JOB_SERVER_SECONDS)
        except grpc.RpcError:
            return ""
        ours = [job.pipeline_options for job in answer.job_info if job.job_name == self._name]
        masters = [options[_MASTER] for options in ours if _MASTER in options]
        return flink_rest.cluster_url(str(masters[-1])) if masters else ""


def _state(result: Any) -> str:
    try:
        return str(result.state)
    except AttributeError:  # a detached job, for whose state Beam's Python side has no name
        return "UNSPECIFIED"
