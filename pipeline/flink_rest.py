"""Flink's REST interface, as far as a launcher needs it."""

from __future__ import annotations

from typing import Any

import requests
from apache_beam.options.pipeline_options import FlinkRunnerOptions, PipelineOptions, PortableOptions

# Beam's words for a Flink that the job server brings along.
WITHIN = ("[auto]", "[local]")
_ANSWER_SECONDS = 5.0


def cluster_url(options: PipelineOptions) -> str:
    """Where the cluster of a ``FlinkRunner`` answers; empty where Beam's options do not name it."""
    master = options.view_as(FlinkRunnerOptions).flink_master.strip()
    if master in WITHIN or options.view_as(PortableOptions).job_endpoint:
        return ""
    return (master if "://" in master else f"http://{master}").rstrip("/")


def ask(url: str, path: str) -> Any:
    """The answer as JSON; None where there is none."""
    try:
        answer = requests.get(f"{url}/{path}", timeout=_ANSWER_SECONDS)
        answer.raise_for_status()
        return answer.json()
    except (requests.RequestException, ValueError):
        return None


def jobs(url: str, name: str) -> set[str]:
    """Ids of the jobs of that name."""
    answer = ask(url, "jobs/overview") or {}
    return {job["jid"] for job in answer.get("jobs", []) if job["name"] == name}
