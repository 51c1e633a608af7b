"""Many small calls to Cloud Storage in one request.

A batch request holds up to 100 calls, of which each counts as one and is answered by itself:
https://cloud.google.com/storage/docs/batch. It saves round trips and connections, not calls.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from google.cloud.storage import Client

CALLS = 100
"""The most calls of a request."""

_T = TypeVar("_T")


def statuses(client: Client, items: Sequence[_T], call: Callable[[_T], object]) -> list[int]:
    """Makes a call for each of at most ``CALLS`` items, in one request that is not tried again.

    Args:
      client: whose methods ``call`` calls; in this thread they are gathered meanwhile.
      items: of the calls.
      call: asks for something that needs no answer, such as a deletion.

    Returns:
      The status of HTTP of each call.

    Raises:
      google.api_core.exceptions.GoogleAPICallError: the request failed as a whole.
      ValueError: the answer is not one of a batch request.
    """
    from google.cloud.storage.batch import Batch

    class Answered(Batch):  # type: ignore[misc]
        """A batch that hands out its answers, and raises none of them."""

        answers: Sequence[Any] = ()

        def finish(self, raise_exception: bool = False) -> Sequence[Any]:
            self.answers = super().finish(raise_exception=False)
            return self.answers

    with Answered(client) as batch:
        for item in items:
            call(item)
    if len(batch.answers) != len(items):
        raise ValueError(f"{len(items)} calls were sent, and {len(batch.answers)} answered")
    return [int(answer.status_code) for answer in batch.answers]
