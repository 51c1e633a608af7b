"""The retry policy of requests to object stores: ``gs://``, ``s3://`` and Beam's.

It is google-cloud-storage's policy with pauses of our own: errors that may be transient are tried again after pauses
that double, with full jitter, until a deadline.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from google.api_core.retry import Retry

FIRST_PAUSE, LONGEST_PAUSE, FACTOR = 0.25, 20.0, 2.0
"""The longest pause before the second try and before any try, in seconds, and its growth per try."""

TIMEOUT = 120.0
"""Seconds after which no try begins."""

SOCKET_TIMEOUT = (10.0, 60.0)
"""Seconds to connect, and seconds without a byte while reading, of one try."""

STATUSES = frozenset({408, 429, 500, 502, 503, 504})
"""HTTP statuses that are tried again, as in google-cloud-storage's ``DEFAULT_RETRY``."""

STALL = 1 / 3
"""After silence for this share of an image's deadline the request is repeated: else one lost packet costs all of it."""

LAST_START = 3 / 4
"""No try for an image begins after this share of its deadline: it would time out and hide the earlier error."""

_T = TypeVar("_T")


def retry_of(predicate: Callable[[Exception], bool]) -> Retry:
    """The policy, for errors that ``predicate`` calls transient."""
    from google.api_core.retry import Retry

    return Retry(
        predicate=predicate,
        initial=FIRST_PAUSE,
        maximum=LONGEST_PAUSE,
        multiplier=FACTOR,
        timeout=TIMEOUT,
    )


def retried(
    call: Callable[[], _T], predicate: Callable[[Exception], bool], timeout: float | None = None
) -> _T:
    """The result of ``call``, tried again after transient errors.

    Args:
      call: one try.
      predicate: whether an error is transient.
      timeout: seconds after which no try begins; None: ``TIMEOUT``.

    Raises:
      Exception: The error of the last try.
    """
    from google.api_core.exceptions import RetryError

    try:
        return retry_of(predicate).with_timeout(TIMEOUT if timeout is None else timeout)(call)()
    except RetryError as error:
        raise error.cause or error from error
