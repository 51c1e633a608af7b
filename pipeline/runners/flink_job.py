"""Our job as Flink knows it, for what Beam's job server does not do.

That answers as soon as it has the graph, and submits it afterwards: a detached job would be gone with a server that we
started. And told to cancel, it stops waiting for the job, which goes on.
"""

from __future__ import annotations

import time
from typing import Any

from apache_beam.options.pipeline_options import FlinkRunnerOptions, GoogleCloudOptions, PortableOptions

from beamlabel.pipeline.process.cancellation import Cancellation
from beamlabel.pipeline.runners import flink_rest
from beamlabel.pipeline.runners.choose import FLINK, PORTABLE, Runner

_POLL_SECONDS = 0.5
# A submission that is interrupted may still get through.
_LATE_SECONDS = 3.0
_JOB_SERVER_SECONDS = 5.0
_MASTER = "beam:option:flink_master:v1"


class FlinkJob:
    """One job; made before it is submitted. Nothing to any other runner than Flink's.

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
        """Returns when Flink has the job, or ``--output_executable_path`` is written.

        At once where a job server that we did not start takes care of that without us.

        Raises:
          RuntimeError: the submission failed.
        """
        cancelled.check()
        while self._writes_jar or (self._url and not self._endpoint):
            cancelled.check()
            state = _state(result)
            if state == "FAILED":
                result.wait_until_finish()  # raises what the job server says
            if state not in ("STARTING", "RUNNING", "STOPPED") or self._find()[0]:
                return
            time.sleep(_POLL_SECONDS)

    def cancel(self, seconds: float) -> str:
        """Cancels the job on Flink, after the job server was told to, and waits for its end.

        Returns:
          Flink's word for its last state; empty where Flink has no such job, or is not known.

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
        """The job's id and state; the newest of that name, since the user may have named it; empty if there is none."""
        jobs = flink_rest.jobs(self._url, self._name)
        new = [(job, state) for job, state in jobs.items() if job not in self._before]
        return new[-1] if new else ("", "")

    def _ask_job_server(self) -> str:
        """Where the job server has its Flink: it completes the options of its jobs by that."""
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
    except AttributeError:  # of a detached job, and Beam's Python side has no word for it
        return "UNSPECIFIED"
