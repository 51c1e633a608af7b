"""The one google-cloud-storage client of a process, and what every call through it shares.

A worker runs dozens of threads that each fetch one object a request. They share one client, so one
token and one pool of kept-alive connections, instead of paying for a handshake an image.

Importing this module does not import Google's library (0.3 s): a job on local files never needs it.
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
"""Connections kept open; more than this many threads open short-lived ones, they do not wait."""

# Where the client talks to is read from these when it is made; a client made for another place is stale.
_ENDPOINT_VARIABLES = ("STORAGE_EMULATOR_HOST", "API_ENDPOINT_OVERRIDE")

_BUCKET = re.compile(r"[a-z0-9][a-z0-9._-]*")

_logger = get_logger(__name__)
_lock = threading.Lock()
_current: tuple[tuple[str | None, ...], Client] | None = None
# When the last answer came, by this machine's monotonic clock, and its Date.
_answered: tuple[float, str | None] | None = None


def client() -> Client:
    """The process's client; made at the first call, and anew in a forked child or for another endpoint.

    Without application default credentials it is anonymous: public buckets can be read. Safe to call from
    any thread.
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
    """The session that a client's requests go through: its credentials, proxies, authorities and connections.

    The client has no public name for it. To make one and hand it over is no way out: the constructor's ``_http``
    is private as well, so its documentation says. Neither is a session of our own beside the client's: which
    credentials go to which endpoint (an emulator gets none), with which client certificate, only the client knows,
    and the size of its pool and the hooks of its session would still have no public option.
    """
    return client._http


def bucket(name: str) -> Bucket:
    """A bucket of the process's client, whose requests are paid for by ``billing.billing_project``."""
    return client().bucket(name, user_project=billing.billing_project())


def parse(uri: str) -> tuple[str, str]:
    """Split ``gs://bucket/name`` into bucket and object name; the name is ``""`` for the bucket itself.

    An object name is taken verbatim: ``%``, ``#`` and ``?`` mean nothing in it.

    Raises:
      ValueError: ``uri`` is not ``gs://`` followed by what can be a bucket's name.
    """
    bucket, _, name = uri.removeprefix("gs://").partition("/")
    if not uri.startswith("gs://") or not _BUCKET.fullmatch(bucket):
        raise ValueError(f"not a gs://bucket/name URI: {uri!r}")
    return bucket, name


def server_time() -> float:
    """The storage's clock, in seconds since 1970: the ``Date`` of its last answer, and the time since then.

    It is late by what the answer took, and by up to a second. Without an answer: the clock of this machine.
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
    """Turn what Google's library raises into the ``OSError`` that a local file would raise, naming ``path``.

    Raises:
      FileNotFoundError: there is no such object or bucket.
      PermissionError: the credentials do not allow it, or there are none and they are needed; or the requester has to
        pay, and nobody is named who does.
      TimeoutError: the server did not answer in time.
      OSError: everything else that the storage or the network answers.
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
        # The last is what an anonymous client makes of a 401.
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

    # Else the client asks for each bucket's metadata too, in a thread of its own, for traces nobody reads.
    os.environ.setdefault("DISABLE_GCS_PYTHON_CLIENT_OTEL_BUCKET_METADATA", "true")
    try:
        # Nothing here is billed to or listed by a project, and most laptops have none configured.
        made = Client(project=None)
    except DefaultCredentialsError:
        _logger.warning("no Google Cloud credentials found: gs:// is accessed anonymously")
        made = Client.create_anonymous_client()
    # requests' own pool holds 10 connections, and warns. A session with a client certificate (mTLS) has mounted an
    # adapter that carries it: that one stays.
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
    # RETRY is made of Google's classes, so it comes to life when it is first asked for (PEP 562).
    if name == "RETRY":
        return _retry()
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def _forget_client() -> None:
    # A forked child shares the parent's sockets, and its lock may have been held by a thread that is gone.
    global _lock, _current
    _lock, _current = threading.Lock(), None


os.register_at_fork(after_in_child=_forget_client)
