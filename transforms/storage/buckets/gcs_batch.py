"""Batch requests: many small calls to Cloud Storage in one request.

A batch request holds up to 100 calls, each of which counts and is answered separately:
https://cloud.google.com/storage/docs/batch. It saves round trips and connections, not calls.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from google.cloud.storage import Client

CALLS = 100
"""The most calls in one request."""

_T = TypeVar("_T")


def statuses(client: Client, items: Sequence[_T], call: Callable[[_T], object]) -> list[int]:
    """Makes a call for each of at most ``CALLS`` items, in one request without retries.

    Args:
      client: whose methods ``call`` calls; this thread's calls are collected meanwhile.
      items: arguments of the calls.
      call: makes a call that needs no answer, such as a deletion.

    Returns:
      The HTTP status of each call.

    Raises:
      google.api_core.exceptions.GoogleAPICallError: The whole request failed.
      ValueError: The answer is not that of a batch request.
    """
    from google.cloud.storage.batch import Batch

    class Answered(Batch):  # type: ignore[misc]
        """A batch that returns its answers and raises none of them."""

        answers: Sequence[Any] = ()

        def finish(self, raise_exception: bool = False) -> Sequence[Any]:
            self.answers = super().finish(raise_exception=False)
            return self.answers

    with Answered(client) as batch:
        for item in items:
            call(item)
    if len(batch.answers) != len(items):
        raise ValueError(f"the batch request had {len(items)} calls, but {len(batch.answers)} answers")
    return [int(answer.status_code) for answer in batch.answers]
