"""The one google-cloud-storage client of a process, with the settings that all calls share.

A worker fetches in dozens of threads, one object per request. They share one client, hence one token and one pool of
kept-alive connections, which saves a handshake per image.

Importing this module does not import Google's library (0.3 s), which a job on local files never needs.
"""

from __future__ import annotations

import errno
import functools
import os
import re
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from email.utils import mktime_tz, parsedate_tz
from typing import TYPE_CHECKING, Any

from beamlabel.transforms.secrets.logs import get_logger
from beamlabel.transforms.storage import billing, retries

if TYPE_CHECKING:
    from google.api_core.retry import Retry
    from google.auth.transport.requests import AuthorizedSession
    from google.cloud.storage import Bucket, Client

    RETRY: Retry

TIMEOUT = retries.SOCKET_TIMEOUT
"""Seconds to connect, and seconds without a byte while reading, of one attempt."""

POOL_SIZE = 64
"""Connections kept open; further threads open short-lived connections instead of waiting."""

# The client reads its endpoint from these when it is created; it is stale once they change.
_ENDPOINT_VARIABLES = ("STORAGE_EMULATOR_HOST", "API_ENDPOINT_OVERRIDE")

_BUCKET = re.compile(r"[a-z0-9][a-z0-9._-]*")

_logger = get_logger(__name__)
_lock = threading.Lock()
_current: tuple[tuple[str | None, ...], Client] | None = None
# Time of the last answer by this machine's monotonic clock, and its Date.
_answered: tuple[float, str | None] | None = None


def client() -> Client:
    """The process's client, created at the first call, and again in a forked child or for another endpoint.

    Without application default credentials it is anonymous and reads public buckets only. Thread-safe.
    """
    global _current
    endpoint = tuple(os.environ.get(name) for name in _ENDPOINT_VARIABLES)
    current = _current
    if current is not None and current[0] == endpoint:
        return current[1]
    with _lock:
        if _current is None or _current[0] != endpoint:
            _current = (endpoint, _new_client())
        return _current[1]


def session(client: Client) -> AuthorizedSession:
    """The session of a client's requests: its credentials, proxies, certificate authorities and connections.

    The client has no public name for it. Passing in a session of our own is no alternative: the constructor's ``_http``
    is documented as private too. Neither is a separate session beside the client's: only the client decides which
    credentials go to which endpoint (an emulator gets none) and with which client certificate, and its session's pool
    size and hooks would still have no public option.
    """
    return client._http


def bucket(name: str) -> Bucket:
    """A bucket of the process's client; ``billing.billing_project`` pays for its requests."""
    return client().bucket(name, user_project=billing.billing_project())


def parse(uri: str) -> tuple[str, str]:
    """Splits ``gs://bucket/name`` into bucket and object name; the name is ``""`` for the bucket itself.

    An object name is taken verbatim: ``%``, ``#`` and ``?`` have no meaning.

    Raises:
      ValueError: ``uri`` is not ``gs://`` followed by a valid bucket name.
    """
    bucket, _, name = uri.removeprefix("gs://").partition("/")
    if not uri.startswith("gs://") or not _BUCKET.fullmatch(bucket):
        raise ValueError(f"not a gs://bucket/name URI: {uri!r}")
    return bucket, name


def server_time() -> float:
    """The server's clock, in seconds since 1970: the ``Date`` of its last answer plus the time since then.

    It lags by the answer's latency and up to a second. Before the first answer it is the clock of this machine.
    """
    answered = _answered
    date = None if answered is None else parsedate_tz(answered[1] or "")
    if answered is None or date is None:
        return time.time()
    return mktime_tz(date) + time.monotonic() - answered[0]


def _note_date(answer: Any, **_: Any) -> None:
    global _answered
    _answered = (time.monotonic(), answer.headers.get("Date"))


@contextmanager
def errors(path: str) -> Iterator[None]:
    """Turns the errors of Google's library into the ``OSError`` that a local file would raise, with ``path``.

    Raises:
      FileNotFoundError: The object or bucket does not exist.
      PermissionError: The credentials are insufficient or missing, or the bucket is requester-pays and no project is
        named.
      TimeoutError: The server did not answer in time.
      OSError: Any other error of the storage or the network.
    """
    from google.api_core import exceptions as api
    from google.auth import exceptions as auth
    from google.cloud.storage import exceptions as storage
    from requests import exceptions as http

    try:
        yield
    except api.NotFound as error:
        raise FileNotFoundError(errno.ENOENT, _message(error), path) from error
    except api.BadRequest as error:
        if billing.wants_payer(400, str(error)):
            raise PermissionError(errno.EACCES, billing.ADVICE, path) from error
        raise OSError(errno.EIO, _message(error), path) from error
    except (api.Forbidden, api.Unauthorized, auth.RefreshError, auth.InvalidOperation) as error:
        # An anonymous client raises InvalidOperation for a 401.
        raise PermissionError(errno.EACCES, _message(error), path) from error
    except http.Timeout as error:
        raise TimeoutError(errno.ETIMEDOUT, _message(error), path) from error
    except (
        api.GoogleAPIError,
        auth.GoogleAuthError,
        http.RequestException,
        storage.DataCorruption,
        storage.InvalidResponse,
    ) as error:
        raise OSError(errno.EIO, _message(error), path) from error


def _message(error: Exception) -> str:
    return str(error).strip() or type(error).__name__


def _new_client() -> Client:
    from google.auth.exceptions import DefaultCredentialsError
    from google.cloud.storage import Client
    from requests.adapters import HTTPAdapter

    # Else the client also requests each bucket's metadata, in a thread of its own, for unused traces.
    os.environ.setdefault("DISABLE_GCS_PYTHON_CLIENT_OTEL_BUCKET_METADATA", "true")
    try:
        # No request here needs the client's project, and most laptops have none configured.
        made = Client(project=None)
    except DefaultCredentialsError:
        _logger.warning("No Google Cloud credentials found; accessing gs:// anonymously")
        made = Client.create_anonymous_client()
    # The default pool of requests holds 10 connections and warns beyond. A session with a client certificate (mTLS)
    # keeps its adapter, which carries the certificate.
    requests = session(made)
    requests.hooks["response"].append(_note_date)
    if not requests.is_mtls:
        adapter = HTTPAdapter(pool_connections=POOL_SIZE, pool_maxsize=POOL_SIZE, pool_block=False)
        requests.mount("https://", adapter)
        requests.mount("http://", adapter)
    return made


@functools.cache
def _retry() -> Retry:
    from google.cloud.storage.retry import DEFAULT_RETRY

    pauses = DEFAULT_RETRY.with_delay(
        initial=retries.FIRST_PAUSE, maximum=retries.LONGEST_PAUSE, multiplier=retries.FACTOR
    )
    return pauses.with_timeout(retries.TIMEOUT)


def __getattr__(name: str) -> Any:
    # RETRY needs Google's classes, so it is created at its first use (PEP 562).
    if name == "RETRY":
        return _retry()
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def _forget_client() -> None:
    # A forked child shares the parent's sockets, and a thread that does not exist there may hold the lock.
    global _lock, _current
    _lock, _current = threading.Lock(), None


os.register_at_fork(after_in_child=_forget_client)
