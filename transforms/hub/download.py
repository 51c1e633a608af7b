"""Downloads a module from a hub into a directory of the cache: one request for a tarball."""

from __future__ import annotations

import base64
import hashlib
import http.client
import urllib.error
import urllib.request
from pathlib import Path
from typing import IO, Any, cast
from urllib.parse import unquote, urlsplit, urlunsplit

from beamlabel import __version__
from beamlabel.transforms.hub.files import TAR_SUFFIXES
from beamlabel.transforms.hub.tarball import extract_tar
from beamlabel.transforms.inference.artifact import ModuleError
from beamlabel.transforms.secrets.text import public_text, public_uri

# https://www.tensorflow.org/hub/hosting: with this query, a handle's URL returns a tarball.
_FORMAT = "tf-hub-format=compressed"
# Longest pause in a response.
_SILENCE_SECONDS = 60.0


def hub_directory(handle: str, root: Path) -> Path:
    """The directory of a hub's module in a cache, named as tensorflow-hub names it, so that both can share a cache.

    Credentials in the handle are ignored: a URL with another signature names the same module.
    """
    return root / hashlib.sha1(public_uri(handle).encode(), usedforsecurity=False).hexdigest()


def download_module(handle: str, directory: Path) -> None:
    """Fetches a module and extracts it into an empty directory.

    Raises:
      ModuleError: the module cannot be fetched, or the response is not a module. The message holds no credentials.
    """
    try:
        with cast("IO[bytes]", _opener().open(_request(handle), timeout=_SILENCE_SECONDS)) as answer:
            extract_tar(answer, directory)
    except ModuleError as error:
        raise ModuleError(f"the answer is not a module ({error}); check the handle") from error
    except (OSError, ValueError, http.client.HTTPException) as error:
        # The text may hold the URL or the target of a redirect, with credentials.
        shown = public_text(f"{type(error).__name__}: {error}")
        raise ModuleError(
            f"it could not be fetched ({shown}); check the handle and the network, or download the module and name its "
            "directory or .tar.gz"
        ) from None


def _request(handle: str) -> urllib.request.Request:
    parts = urlsplit(handle)
    query = parts.query
    # A signature covers the query, so the query must not change.
    is_signed = query != urlsplit(public_uri(handle)).query and parts.path.endswith(TAR_SUFFIXES)
    if not is_signed:
        query = f"{query}&{_FORMAT}" if query else _FORMAT
    user, at, host = parts.netloc.rpartition("@")
    url = urlunsplit((parts.scheme, host, parts.path, query, ""))
    request = urllib.request.Request(url, headers={"User-Agent": f"beamlabel/{__version__}"})
    if at:
        token = base64.b64encode(unquote(user).encode()).decode()
        # A redirect may lead to another host, which must not get the password.
        request.add_unredirected_header("Authorization", f"Basic {token}")
    return request


class _Redirects(urllib.request.HTTPRedirectHandler):
    """Follows redirects on the web, but not from https to http."""

    def redirect_request(
        self, req: urllib.request.Request, fp: Any, code: int, msg: str, headers: Any, newurl: str
    ) -> urllib.request.Request | None:
        scheme = urlsplit(newurl).scheme
        if scheme != "https" and (scheme != "http" or req.type == "https"):
            raise urllib.error.HTTPError(req.full_url, code, f"a redirect to {scheme}://", headers, fp)
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _opener() -> urllib.request.OpenerDirector:
    """Opens http and https only: no files, no FTP."""
    opener = urllib.request.OpenerDirector()
    for handler in (
        urllib.request.ProxyHandler,
        urllib.request.HTTPHandler,
        urllib.request.HTTPSHandler,
        urllib.request.HTTPDefaultErrorHandler,
        urllib.request.HTTPErrorProcessor,
        urllib.request.UnknownHandler,
        _Redirects,
    ):
        opener.add_handler(handler())
    return opener
