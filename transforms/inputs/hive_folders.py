"""Hive folders: ``dt=2026-01-31`` in a path is a column of all that lies below it.

The names are written as Hive and Spark write them: characters that paths do not take are percent-encoded, and
``__HIVE_DEFAULT_PARTITION__`` stands for null
(https://github.com/apache/hive/blob/master/common/src/java/org/apache/hadoop/hive/common/FileUtils.java,
``escapePathName``). Values are strings: a folder does not say more, and ``00123`` or ``1e5`` may be a name.
"""

from __future__ import annotations

from urllib.parse import unquote

from beamlabel.transforms.storage.uris import encodable, scheme

NULL_FOLDER = "__HIVE_DEFAULT_PARTITION__"


def folder_values(path: str) -> dict[str, str | None]:
    """The columns that the folders of a path name, from the outermost on.

    A name to which two folders give different values is none.

    Args:
      path: of a file, absolute, or a URI. The file's own name is no folder.
    """
    path = path if scheme(path) in (None, "file", "gs") else path.partition("?")[0]
    found: dict[str, str | None] = {}
    ambiguous = set[str]()
    for folder in path.split("/")[:-1]:
        name, sign, text = folder.partition("=")
        if not sign or not name:
            continue
        name, value = _decoded(name), None if text == NULL_FOLDER else _decoded(text)
        if found.setdefault(name, value) != value:
            ambiguous.add(name)
    return {name: value for name, value in found.items() if name not in ambiguous}


def _decoded(text: str) -> str:
    """A name without percent-encoding, unless that would be no UTF-8."""
    try:
        return encodable(unquote(text, errors="strict"))
    except UnicodeError:
        return encodable(text)
