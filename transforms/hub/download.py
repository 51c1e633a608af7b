"""Downloads a module from a hub into a directory of the cache: one request, answered by a tarball."""

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

# https://www.tensorflow.org/hub/hosting: with this in its query a handle's URL gives a tarball.
_FORMAT = "tf-hub-format=compressed"
# Between two pieces of an answer.
_SILENCE_SECONDS = 60.0


def hub_folder(handle: str, root: Path) -> Path:
    """The directory of a hub's module in a cache, named as tensorflow-hub names it, so that both may share one.

    Credentials in the handle do not count: a URL with another signature names the same module.
    """
    return root / hashlib.sha1(public_uri(handle).encode(), usedforsecurity=False).hexdigest()


def download_module(handle: str, folder: Path) -> None:
    """Fetches a module and extracts it into an empty directory.

    Raises:
      ModuleError: it cannot be fetched, or the answer is no module; without credentials of the handle.
    """
    try:
        with cast("IO[bytes]", _opener().open(_request(handle), timeout=_SILENCE_SECONDS)) as answer:
            extract_tar(answer, folder)
    except ModuleError as error:
        raise ModuleError(f"the answer is not a module ({error}); check the handle") from error
    except (OSError, ValueError, http.client.HTTPException) as error:
        # The text may hold the URL, or the target of a redirect.
        shown = public_text(f"{type(error).__name__}: {error}")
        raise ModuleError(
            f"it could not be fetched ({shown}); check the handle and the network, or download the module and name its "
            "directory or .tar.gz"
        ) from None


def _request(handle: str) -> urllib.request.Request:
    parts = urlsplit(handle)
    query = parts.query
    # A signature covers the query as it is.
    is_signed = query != urlsplit(public_uri(handle)).query and parts.path.endswith(TAR_SUFFIXES)
    if not is_signed:
        query = f"{query}&{_FORMAT}" if query else _FORMAT
    user, at, host = parts.netloc.rpartition("@")
    url = urlunsplit((parts.scheme, host, parts.path, query, ""))
    request = urllib.request.Request(url, headers={"User-Agent": f"beamlabel/{__version__}"})
    if at:
        token = base64.b64encode(unquote(user).encode()).decode()
        # Not for another host that the answer may redirect to.
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
