"""The options that name a truth, shared by the commands that take one."""

from __future__ import annotations

from dataclasses import dataclass

from beamlabel.pipeline.options.declare import option, repeated
from beamlabel.pipeline.options.types import TEXT


@dataclass(frozen=True, kw_only=True)
class TruthOptions:
    """Which classes the images really have."""

    truth: tuple[str, ...] = repeated(
        metavar="TRUTH",
        help="FILE, COLUMN of the output, or parent (the image's folder is its class); ./NAME is always a file; may be "
        "repeated, later ones win",
        is_required=True,
    )
    truth_column: str | None = option(TEXT, metavar="NAME", help="column of FILE that holds the classes")
    truth_key: str | None = option(
        TEXT,
        metavar="NAME",
        help="column of FILE that names the image, if it is none of ref_id, image_id, uri, url, path, file, filename",
    )
    multi_label: str | None = option(
        TEXT,
        metavar="SEPARATOR",
        help="several classes an image, with this text between them, such as ';'; lists need no separator",
    )
