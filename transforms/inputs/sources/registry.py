"""The source for each kind of input."""

from __future__ import annotations

from beamlabel.transforms.inputs.sources.archive import ARCHIVES, ArchiveSource
from beamlabel.transforms.inputs.sources.embeddings import EmbeddingsSource
from beamlabel.transforms.inputs.sources.listing import ListingSource
from beamlabel.transforms.inputs.sources.parquet import ParquetSource
from beamlabel.transforms.inputs.sources.source import Source
from beamlabel.transforms.inputs.sources.table import TableSource
from beamlabel.transforms.inputs.sources.text import TextSource
from beamlabel.transforms.inputs.tables.described import TABLES
from beamlabel.transforms.row_batches import EMBEDDINGS

IMAGES = "images"
WITHOUT_COLUMNS = ("text", IMAGES)
"""Formats whose files have no columns except those in their directories' names."""

_TABLE = TableSource()
_SOURCES: dict[str, Source] = {
    "text": TextSource(),
    "parquet": ParquetSource(),
    IMAGES: ListingSource(),
    EMBEDDINGS: EmbeddingsSource(),
    **dict.fromkeys(TABLES, _TABLE),
    **dict.fromkeys(ARCHIVES, ArchiveSource()),
}


def source_of(format: str) -> Source:
    """The source for inputs of a format, see ``InputFile``.

    Raises:
      ValueError: there is no such format.
    """
    try:
        return _SOURCES[format]
    except KeyError:
        raise ValueError(f"unknown input format {format!r}; formats: {', '.join(_SOURCES)}") from None
