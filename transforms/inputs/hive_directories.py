"""Hive directories: ``dt=2026-01-31`` in a path is a column of all files below it.

Names follow Hive and Spark: characters that paths do not allow are percent-encoded, and
``__HIVE_DEFAULT_PARTITION__`` stands for null
(https://github.com/apache/hive/blob/master/common/src/java/org/apache/hadoop/hive/common/FileUtils.java,
``escapePathName``). Values are strings: a directory does not name a type, and ``00123`` or ``1e5`` may be a name.
"""

from __future__ import annotations

from urllib.parse import unquote

from beamlabel.transforms.storage.uris import encodable, scheme

NULL_DIRECTORY = "__HIVE_DEFAULT_PARTITION__"


def directory_values(path: str) -> dict[str, str | None]:
    """The columns in the names of a path's directories, starting with the outermost.

    A name with different values in two directories is left out.

    Args:
      path: of a file, absolute, or a URI. The file's own name is ignored.
    """
    path = path if scheme(path) in (None, "file", "gs") else path.partition("?")[0]
    found: dict[str, str | None] = {}
    ambiguous = set[str]()
    for directory in path.split("/")[:-1]:
        name, sign, text = directory.partition("=")
        if not sign or not name:
            continue
        name, value = _decoded(name), None if text == NULL_DIRECTORY else _decoded(text)
        if found.setdefault(name, value) != value:
            ambiguous.add(name)
    return {name: value for name, value in found.items() if name not in ambiguous}


def _decoded(text: str) -> str:
    """A name without percent-encoding, unless the result is not UTF-8."""
    try:
        return encodable(unquote(text, errors="strict"))
    except UnicodeError:
        return encodable(text)
