"""The one boto3 client of a process for ``s3://``, made from Beam's options, with the settings that all calls share.

Beam's own S3 file system creates a session and client for each call (a quarter of a second of CPU), requests an
object's size before each read, cannot write empty objects, and has no conditional requests. This module uses Beam's
options and the library of Beam's extra ``aws``, but not that file system. boto3 finds the options that are not given:
``AWS_ENDPOINT_URL_S3``, ``AWS_REGION``, profiles, roles; see
https://docs.aws.amazon.com/boto3/latest/guide/configuration.html.

Importing this module does not import boto3.
"""

from __future__ import annotations

import errno
import os
import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple, TypeVar

from beamlabel.transforms.secrets.logs import get_logger
from beamlabel.transforms.storage import beam_setup
from beamlabel.transforms.storage.retries import SOCKET_TIMEOUT, STATUSES, retried

POOL_SIZE = 64
"""Connections kept open."""

# Error codes in an answer's body that ask for a retry, with any status.
_COME_AGAIN = frozenset(
    {"RequestTimeout", "RequestTimeoutException", "SlowDown", "InternalError", "OperationAborted",
     "ConditionalRequestConflict", "ThrottlingException", "Throttling"}
)  # fmt: skip
_BUCKET = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")

_T = TypeVar("_T")

_logger = get_logger(__name__)
_lock = threading.Lock()
# Beam's options, the environment, and the client made from them.
_current: tuple[Any, tuple[str | None, ...], Reached] | None = None
# boto3 reads them when a client is created; the client is stale once they change.
_VARIABLES = (
    "AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "AWS_PROFILE", "AWS_ACCESS_KEY_ID", "AWS_REGION", "AWS_DEFAULT_REGION",
)  # fmt: skip


class Settings(NamedTuple):
    """Beam's ``S3Options``; None: boto3 finds the value."""

    access_key_id: str | None = None
    secret_access_key: str | None = None
    session_token: str | None = None
    endpoint_url: str | None = None
    region_name: str | None = None
    api_version: str | None = None
    verify: bool | str | None = None
    disable_ssl: bool = False


def _settings(options: Any) -> Settings:
    if options is None:
        return Settings()
    from apache_beam.options.pipeline_options import S3Options

    found = options.view_as(S3Options)
    values = {name: getattr(found, f"s3_{name}") for name in Settings._fields}
    # The command line gives a word, which boto3 would take for a path.
    verify = values.pop("verify")
    return Settings(**values, verify={"true": True, "false": False}.get(str(verify).lower(), verify))


class Reached(NamedTuple):
    """A client and its settings.

    Attributes:
      client: boto3's.
      settings: of the client.
    """

    client: Any
    settings: Settings


def reached() -> Reached:
    """The process's client, created at the first call, and again in a forked child or with other options.

    Without credentials it is anonymous and reads public buckets only. Thread-safe.

    Raises:
      ValueError: boto3 is not installed, or the options are invalid.
    """
    global _current
    options = beam_setup.pipeline_options()
    environment = tuple(os.environ.get(name) for name in _VARIABLES)
    current = _current
    if current is not None and current[0] is options and current[1] == environment:
        return current[2]
    with _lock:
        if _current is None or _current[0] is not options or _current[1] != environment:
            made = _settings(options)
            # A pipeline has its own options object, often with the same values.
            if _current is None or _current[1] != environment or _current[2].settings != made:
                reached = Reached(_new_client(made), made)
            else:
                reached = _current[2]
            _current = (options, environment, reached)
        return _current[2]


def _new_client(settings: Settings) -> Any:
    try:
        from boto3.session import Session
        from botocore import UNSIGNED
        from botocore.config import Config
    except ImportError as error:
        raise ValueError(beam_setup.lacking("s3")) from error

    session = Session()
    is_known = settings.access_key_id is not None or session.get_credentials() is not None
    if not is_known:
        _logger.warning("No AWS credentials found; accessing s3:// anonymously")
    config = Config(
        # `retries` decides which errors are tried again, and for how long.
        retries={"total_max_attempts": 1, "mode": "standard"},
        connect_timeout=SOCKET_TIMEOUT[0],
        read_timeout=SOCKET_TIMEOUT[1],
        max_pool_connections=POOL_SIZE,
        signature_version="s3v4" if is_known else UNSIGNED,
    )
    return session.client(
        "s3",
        # S3 needs a region and answers with the right one; other servers accept any.
        region_name=settings.region_name or session.region_name or "us-east-1",
        api_version=settings.api_version,
        use_ssl=not settings.disable_ssl,
        verify=settings.verify,
        endpoint_url=settings.endpoint_url,
        aws_access_key_id=settings.access_key_id,
        aws_secret_access_key=settings.secret_access_key,
        aws_session_token=settings.session_token,
        config=config,
    )


def parse(uri: str) -> tuple[str, str]:
    """Splits ``s3://bucket/name`` into bucket and object name; the name is ``""`` for the bucket itself.

    An object name is taken verbatim: ``%``, ``#`` and ``?`` have no meaning.

    Raises:
      ValueError: ``uri`` is not ``s3://`` followed by a valid bucket name.
    """
    bucket, _, name = uri.removeprefix("s3://").partition("/")
    if not uri.startswith("s3://") or not _BUCKET.fullmatch(bucket):
        raise ValueError(f"not an s3://bucket/name URI: {uri!r}")
    return bucket, name


def version(etag: str | None) -> str | None:
    """An ``ETag`` without its quotes."""
    return etag.strip('"') if etag else None


def request(path: str, call: Callable[[Any], _T]) -> _T:
    """The result of ``call(client)``, tried again while the error is transient.

    Raises:
      OSError: See ``errors``.
    """
    made = reached().client
    with errors(path):
        return retried(lambda: call(made), is_transient)


def status_of(error: BaseException) -> int | None:
    """The HTTP status of the service's answer."""
    return getattr(error, "response", {}).get("ResponseMetadata", {}).get("HTTPStatusCode")


def code_of(error: BaseException) -> str:
    """The service's code of an error, such as ``NoSuchKey``."""
    return str(getattr(error, "response", {}).get("Error", {}).get("Code", ""))


def is_transient(error: Exception) -> bool:
    """Whether another try may succeed: a busy service, a slow or broken connection, half a body."""
    from botocore import exceptions as boto

    if isinstance(error, boto.ClientError):
        return status_of(error) in STATUSES or code_of(error) in _COME_AGAIN
    kinds = (
        boto.HTTPClientError,
        boto.IncompleteReadError,
        boto.ResponseStreamingError,
        boto.FlexibleChecksumError,
    )
    return isinstance(error, (*kinds, ConnectionError, TimeoutError))


@contextmanager
def errors(path: str) -> Iterator[None]:
    """Turns boto3's errors into the ``OSError`` that a local file would raise, with ``path``.

    Raises:
      FileNotFoundError: The object or bucket does not exist.
      PermissionError: The credentials are insufficient or missing.
      TimeoutError: The server did not answer in time.
      OSError: Any other error of the storage or the network.
      ValueError: The request is invalid, such as one with an invalid name.
    """
    from botocore import exceptions as boto

    try:
        yield
    except boto.ClientError as error:
        kinds = {404: errno.ENOENT, 401: errno.EACCES, 403: errno.EACCES}
        raise OSError(kinds.get(status_of(error) or 0, errno.EIO), str(error), path) from error
    except (boto.ConnectTimeoutError, boto.ReadTimeoutError) as error:
        raise OSError(errno.ETIMEDOUT, str(error), path) from error
    except (boto.NoCredentialsError, boto.PartialCredentialsError, boto.CredentialRetrievalError) as error:
        raise OSError(errno.EACCES, str(error), path) from error
    except boto.ParamValidationError as error:
        raise ValueError(f"{path!r}: {error}") from error
    except boto.BotoCoreError as error:
        raise OSError(errno.EIO, f"{type(error).__name__}: {error}", path) from error


def _forget_client() -> None:
    # A forked child shares the parent's sockets, and a thread that does not exist there may hold the lock.
    global _lock, _current
    _lock, _current = threading.Lock(), None


os.register_at_fork(after_in_child=_forget_client)
