"""Which requests to an object store are tried again, and when: one policy for ``gs://``, ``s3://`` and Beam's.

It is that of google-cloud-storage with pauses of our own: what may be transient is tried again after pauses that
double, with full jitter, until a deadline.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from google.api_core.retry import Retry

FIRST_PAUSE, LONGEST_PAUSE, FACTOR = 0.25, 20.0, 2.0
"""Seconds at most before the second try, and before any; and by how much they grow from try to try."""

TIMEOUT = 120.0
"""Seconds after which no try begins."""

SOCKET_TIMEOUT = (10.0, 60.0)
"""Seconds to connect, and seconds without a byte while reading, of one try."""

STATUSES = frozenset({408, 429, 500, 502, 503, 504})
"""Of HTTP, that the next try may not meet: those of google-cloud-storage's ``DEFAULT_RETRY``."""

STALL = 1 / 3
"""An image's server that is silent for this share of its deadline is asked again: else one lost packet costs it all."""

LAST_START = 3 / 4
"""No try for an image begins after this share of its deadline: it would but time out, and hide what the others met."""

_T = TypeVar("_T")


def retry_of(predicate: Callable[[Exception], bool]) -> Retry:
    """The policy, for errors of which ``predicate`` says that they are transient."""
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
    """What ``call`` returns, in the end.

    Args:
      call: one try.
      predicate: whether an error is transient.
      timeout: seconds after which no try begins; None: ``TIMEOUT``.

    Raises:
      Exception: that of the last try.
    """
    from google.api_core.exceptions import RetryError

    try:
        return retry_of(predicate).with_timeout(TIMEOUT if timeout is None else timeout)(call)()
    except RetryError as error:
        raise error.cause or error from error
