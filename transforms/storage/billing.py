"""The project that pays for a process's requests to requester-pays buckets on ``gs://``.

Requester-pays buckets refuse requests without a project: https://cloud.google.com/storage/docs/requester-pays
"""

from __future__ import annotations

import re

OPTION = "--billing_project"
ADVICE = f"the bucket is requester-pays; name the project that pays with {OPTION}"

# Project ids, also those in a domain ("example.com:project"), and project numbers.
_PROJECT = re.compile(r"(?:[a-z0-9.-]+:)?[a-z0-9][a-z0-9-]*")

_project: str | None = None


def check_billing_project(project: str | None) -> None:
    """Raises ``ValueError`` if ``project`` is neither a project id nor a project number."""
    if project is not None and not (isinstance(project, str) and _PROJECT.fullmatch(project)):
        raise ValueError(f"billing_project must be a project id, such as my-project-123, not {project!r}")


def set_billing_project(project: str | None) -> None:
    """Sets the project that pays for all later requests of this process; None: the bucket's owner pays."""
    global _project
    check_billing_project(project)
    _project = project


def billing_project() -> str | None:
    """The project that pays for this process's requests."""
    return _project


def wants_payer(status: object, message: str) -> bool:
    """Whether an answer refuses a request because it names no project that pays.

    The texts are ``Bucket is a requester pays bucket but no user project provided.`` (JSON API, also without ``a``) and
    ``UserProjectMissing`` (XML API).
    """
    text = message.lower()
    return status == 400 and ("requester pays" in text or "userprojectmissing" in text)
