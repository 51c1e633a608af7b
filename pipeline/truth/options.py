"""Options for the truth, shared by several commands."""

from __future__ import annotations

from dataclasses import dataclass

from beamlabel.pipeline.options.declare import option, repeated
from beamlabel.pipeline.options.types import TEXT


@dataclass(frozen=True, kw_only=True)
class TruthOptions:
    """The true classes of the images."""

    truth: tuple[str, ...] = repeated(
        metavar="TRUTH",
        help="FILE, COLUMN of the output, or parent (an image's directory is its class); ./NAME is always a file; "
        "repeatable, later ones take precedence",
        is_required=True,
    )
    truth_column: str | None = option(TEXT, metavar="NAME", help="column of FILE with the classes")
    truth_key: str | None = option(
        TEXT,
        metavar="NAME",
        help="column of FILE with the images, if it is not ref_id, image_id, uri, url, path, file or filename",
    )
    multi_label: str | None = option(
        TEXT,
        metavar="SEPARATOR",
        help="allow several classes per image, separated by this text, such as ';'; lists need no separator",
    )
