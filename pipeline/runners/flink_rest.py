"""Flink's REST interface, as far as a launcher needs it."""

from __future__ import annotations

from typing import Any

import requests

# Beam's words for a Flink that the job server brings along, or knows.
WITHIN = ("[auto]", "[local]")
ENDED = ("FINISHED", "CANCELED", "FAILED")
_ANSWER_SECONDS = 5.0


def cluster_url(master: str) -> str:
    """Where the cluster that ``--flink_master`` names answers; empty where it names none."""
    master = master.strip()
    if master in WITHIN:
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


def jobs(url: str, name: str) -> dict[str, str]:
    """The state of each job of that name, by its id, oldest first; nothing where no cluster answers."""
    answer = (ask(url, "jobs/overview") if url else None) or {}
    found = sorted(answer.get("jobs", []), key=lambda job: job["start-time"])
    return {job["jid"]: job["state"] for job in found if job["name"] == name}


def cancel(url: str, job: str) -> None:
    """Asks for the end of a job.

    Raises:
      requests.RequestException: the cluster does not answer, or refuses.
    """
    answer = requests.patch(f"{url}/jobs/{job}", params={"mode": "cancel"}, timeout=_ANSWER_SECONDS)
    answer.raise_for_status()
