"""Files that lie beside lists, tables and archives and are none: cards, licences, descriptions."""

from __future__ import annotations

import re

from beamlabel.transforms.inputs.tables.table_kinds import table_by_name

DOCUMENT = "document"
"""The cause why such a file is left out."""

_ENDING = re.compile(
    r"\.(md|rst|adoc|tex|pdf|docx?|odt|rtf|html?|css|js|ts|xml|xmp|yaml|yml|toml|ini|cfg|conf|py|pyi|ipynb|r|sh|bat|sql|"
    r"log|lock|crc|md5|sha1|sha256|sum|bib|cff)$"
)
_NAME = re.compile(
    r"(readme|licen[cs]e|copying|notice|authors|citation|changelog|contributing|makefile|dockerfile)\b.*"
)
_LIST_ENDING = re.compile(r"\.(txt|text|list|lst|urls?|uris?|paths?)(\.(gz|gzip|zst|zstd))?$")


def is_document(path: str, format: str, *, beside_data: bool) -> bool:
    """Whether a file of a folder is no input, though it is text.

    Args:
      path: of the file.
      format: as its first bytes tell it.
      beside_data: whether the folder has Parquet files, tables or archives: then a file of text has to be named as a
        list or a table is, and JSON describes the others.
    """
    name = path.rpartition("/")[2].lower()
    if _ENDING.search(name) or _NAME.fullmatch(name):
        return True
    if not beside_data or format in ("parquet", "tar", "zip", "images"):
        return False
    return name.endswith(".json") or not (table_by_name(path) or _LIST_ENDING.search(name))


def may_be_list(path: str) -> bool:
    """Whether a file is named as a list or a table is."""
    name = path.rpartition("/")[2].lower()
    if _NAME.fullmatch(name) or name.endswith(".json"):
        return False
    return table_by_name(path) is not None or _LIST_ENDING.search(name) is not None
