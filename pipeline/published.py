"""Finds published outputs by the manifests below directories and globs."""

from __future__ import annotations

import re
from collections.abc import Iterator

from beamlabel.pipeline import layout
from beamlabel.transforms import storage
from beamlabel.transforms.storage.listing.stored_file import StoredFile
from beamlabel.transforms.storage.patterns import has_glob

# Our directories without a published output; the second is from schema version 1.
_OWN_DIRECTORIES = re.compile(rf"({layout.OWN}|{layout.EARLIER_STAGING})(-[0-9a-f]{{12}})?|{layout.FAILURES}")


def manifests(pattern: str) -> Iterator[StoredFile]:
    """The ``_MANIFEST.json`` files of a pattern: an output, a directory of outputs, or a glob.

    Raises:
      OSError, ValueError: it cannot be listed.
    """
    pattern = storage.absolute(pattern)
    if has_glob(pattern):
        # A storage that can filter lists only manifests.
        patterns = [pattern.rstrip("/") + f"/**/{layout.MANIFEST}", pattern]
    else:
        patterns = [pattern.rstrip("/") + "/"]
    seen = set()
    for each in patterns:
        for file in storage.match(each):
            directories, _, name = file.path.rpartition("/")
            if (
                name != layout.MANIFEST
                or file.path in seen
                or any(map(_OWN_DIRECTORIES.fullmatch, directories.split("/")))
            ):
                continue
            seen.add(file.path)
            yield file
