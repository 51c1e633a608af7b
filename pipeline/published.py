"""Where published outputs are: the manifests below folders and globs."""

from __future__ import annotations

import re
from collections.abc import Iterator

from beamlabel.pipeline import layout
from beamlabel.transforms import storage
from beamlabel.transforms.storage.listing.stored_file import StoredFile
from beamlabel.transforms.storage.patterns import has_glob

# Folders of ours that hold no published output; the second is that of schema version 1.
_OWN_FOLDERS = re.compile(rf"({layout.OWN}|{layout.EARLIER_STAGING})(-[0-9a-f]{{12}})?|{layout.FAILURES}")


def manifests(pattern: str) -> Iterator[StoredFile]:
    """The ``_MANIFEST.json`` files of the outputs that a pattern names: an output, a folder of outputs, or a glob.

    Raises:
      OSError, ValueError: it cannot be listed.
    """
    pattern = storage.absolute(pattern)
    if has_glob(pattern):
        # Only manifests are listed where the storage can do that.
        patterns = [pattern.rstrip("/") + f"/**/{layout.MANIFEST}", pattern]
    else:
        patterns = [pattern.rstrip("/") + "/"]
    seen = set()
    for each in patterns:
        for file in storage.match(each):
            folders, _, name = file.path.rpartition("/")
            if (
                name != layout.MANIFEST
                or file.path in seen
                or any(map(_OWN_FOLDERS.fullmatch, folders.split("/")))
            ):
                continue
            seen.add(file.path)
            yield file
