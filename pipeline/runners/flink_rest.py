"""Flink's REST interface, as far as a launcher needs it."""

from __future__ import annotations

from typing import Any

import requests

# Beam's values for a Flink that the job server starts, or is configured for.
WITHIN = ("[auto]", "[local]")
ENDED = ("FINISHED", "CANCELED", "FAILED")
_ANSWER_SECONDS = 5.0


def cluster_url(master: str) -> str:
    """The REST URL of the cluster that ``--flink_master`` names; empty if it names none."""
    master = master.strip()
    if master in WITHIN:
        return ""
    return (master if "://" in master else f"http://{master}").rstrip("/")


def ask(url: str, path: str) -> Any:
    """The response as JSON; None if there is none."""
    try:
        answer = requests.get(f"{url}/{path}", timeout=_ANSWER_SECONDS)
        answer.raise_for_status()
        return answer.json()
    except (requests.RequestException, ValueError):
        return None


def jobs(url: str, name: str) -> dict[str, str]:
    """The state of each job of that name, by its id, oldest first; empty if no cluster responds."""
    answer = (ask(url, "jobs/overview") if url else None) or {}
    found = sorted(answer.get("jobs", []), key=lambda job: job["start-time"])
    return {job["jid"]: job["state"] for job in found if job["name"] == name}


def cancel(url: str, job: str) -> None:
    """Requests the cancellation of a job.

    Raises:
      requests.RequestException: the cluster does not respond, or refuses.
    """
    answer = requests.patch(f"{url}/jobs/{job}", params={"mode": "cancel"}, timeout=_ANSWER_SECONDS)
    answer.raise_for_status()
