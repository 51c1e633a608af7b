"""``--keep_columns`` of inputs without columns of their own: the names of their Hive directories."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence

import pyarrow as pa

from beamlabel.transforms.inputs.hive_directories import directory_values
from beamlabel.transforms.inputs.kept_columns import KeptColumn, kept_column, parse_kept
from beamlabel.transforms.inputs.sources.listing import listed
from beamlabel.transforms.inputs.sources.packed import Found
from beamlabel.transforms.inputs.sources.path_filter import PathFilter
from beamlabel.transforms.inputs.sources.registry import IMAGES
from beamlabel.transforms.records import InputFile

# The number of listed images to search: one in such a directory is enough, and the others are null.
_LOOKED_AT = 10_000
_NOTHING = pa.schema([])


def directory_kept(file: InputFile, asked: Sequence[str], wanted: PathFilter) -> tuple[KeptColumn, ...]:
    """The kept columns of a text file or a listing.

    Args:
      file: of a format in ``WITHOUT_COLUMNS``.
      asked: the columns, in the forms of ``parse_kept``.
      wanted: selects files of a listing.

    Raises:
      ValueError: no directory has the name; names the option and the existing directories.
      OSError: a directory cannot be listed.
    """
    paths = list(_paths(file, wanted)) if file.format == IMAGES else [file.path]
    kept = []
    for text in asked:
        named = (path for path in paths if parse_kept(text, list(directory_values(path))) is not None)
        path = next(named, None) or next(filter(directory_values, paths), None)
        if path is None:
            raise ValueError(
                f"--keep_columns {text}: {file.path} has the format {file.format} without columns, and none of its "
                "directories is named NAME=VALUE"
            )
        kept.append(kept_column(text, _NOTHING, path))
    return tuple(kept)


def _paths(file: InputFile, wanted: PathFilter) -> Iterator[str]:
    places = itertools.islice(listed(file.path, wanted), _LOOKED_AT)
    return (place.uri for place in places if isinstance(place, Found))
