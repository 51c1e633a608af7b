"""Links from the page to the images: addresses on the web, and local files relative to the page."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote, urlsplit

from beamlabel.transforms import storage
from beamlabel.transforms.inputs.archives.compression import ARCHIVE_ENDINGS
from beamlabel.transforms.secrets.text import public_uri
from beamlabel.transforms.storage.uris import resolve, scheme

_MAX_CHARACTERS = 2000
# Characters of a URL that keep their meaning.
_KEPT = "%/:?#[]@!$&'()*+,;=~"
_MEMBER = re.compile(rf"(?:{'|'.join(map(re.escape, ARCHIVE_ENDINGS))})#", re.IGNORECASE)
# Bytes of a file name that are not UTF-8, as ``encodable`` writes them.
_ESCAPED_BYTE = re.compile(r"\\udc[89a-f][0-9a-f]")


def has_names(manifest: Mapping[str, Any]) -> bool:
    """Whether a relative reference of the run may be the name of an image inside a table."""
    return "parquet" in {file.get("format") for file in manifest.get("input_files") or ()}


def is_relative(uri: str) -> bool:
    """Whether a reference is relative to a base directory, or a name."""
    return scheme(uri) is None and not uri.startswith(("/", "file:"))


class Links:
    """Makes the links of one page.

    Making a link opens no file and looks none up, since the rows may come from another person.

    Args:
      manifest: the run's manifest. Relative references start at its ``base_dir``; the page is in its output.
    """

    def __init__(self, manifest: Mapping[str, Any]) -> None:
        output = manifest["output"]
        self._page = storage.absolute(output) if output and storage.is_local(output) else None
        self._base = manifest["options"].get("base_dir")
        self._has_names = has_names(manifest)

    def of(self, uri: str | None) -> str | None:
        """The link to an image; None if a browser cannot reach it.

        Args:
          uri: the whole reference, as in the output.
        """
        if uri is None or uri != public_uri(uri):
            return None
        kind = scheme(uri)
        link = _web(uri) if kind in ("http", "https") else self._local(uri)
        return None if link is None or len(link) > _MAX_CHARACTERS else link

    def _local(self, uri: str) -> str | None:
        if self._page is None or (is_relative(uri) and (self._base is None or self._has_names)):
            return None
        place = resolve(uri, self._base or "/")
        if not place.startswith("/") or "\0" in place or _MEMBER.search(place) or _ESCAPED_BYTE.search(place):
            return None
        # After this prefix a name such as javascript:x has no scheme, and its colon is encoded.
        path = os.path.relpath(place, self._page)
        prefix = "" if path.startswith("../") else "./"
        return prefix + quote(path, safe="/", errors="surrogateescape")


def _web(uri: str) -> str | None:
    link = quote(uri, safe=_KEPT, errors="surrogateescape")
    try:
        parts = urlsplit(link)
        is_plain = bool(parts.hostname) and parts.username is None and parts.password is None
        # A port that is not a number is part of something else.
        return link if is_plain and parts.port != 0 else None
    except ValueError:
        return None
