"""Text files beside lists, tables and archives that are not inputs: cards, licenses, descriptions."""

from __future__ import annotations

import re

from beamlabel.transforms.inputs.tables.table_kinds import table_by_name

DOCUMENT = "document"
"""The cause for leaving out such a file."""

_ENDING = re.compile(
    r"\.(md|rst|adoc|tex|pdf|docx?|odt|rtf|html?|css|js|ts|xml|xmp|yaml|yml|toml|ini|cfg|conf|py|pyi|ipynb|r|sh|bat|sql|"
    r"log|lock|crc|md5|sha1|sha256|sum|bib|cff)$"
)
_NAME = re.compile(
    r"(readme|licen[cs]e|copying|notice|authors|citation|changelog|contributing|makefile|dockerfile)\b.*"
)
_LIST_ENDING = re.compile(r"\.(txt|text|list|lst|urls?|uris?|paths?)(\.(gz|gzip|zst|zstd))?$")


def is_document(path: str, format: str, *, beside_data: bool) -> bool:
    """Whether a text file of a directory is not an input.

    Args:
      path: of the file.
      format: by its first bytes.
      beside_data: whether the directory has Parquet files, tables or archives. If so, a text file needs the name of a
        list or a table, and JSON describes the others.
    """
    name = path.rpartition("/")[2].lower()
    if _ENDING.search(name) or _NAME.fullmatch(name):
        return True
    if not beside_data or format in ("parquet", "tar", "zip", "images"):
        return False
    return name.endswith(".json") or not (table_by_name(path) or _LIST_ENDING.search(name))


def may_be_list(path: str) -> bool:
    """Whether a file has the name of a list or a table."""
    name = path.rpartition("/")[2].lower()
    if _NAME.fullmatch(name) or name.endswith(".json"):
        return False
    return table_by_name(path) is not None or _LIST_ENDING.search(name) is not None
