"""Permissions to fetch for commands that read an output of somebody else: only the command line grants them."""

from __future__ import annotations

from dataclasses import dataclass

from beamlabel.pipeline.options.declare import flag, option
from beamlabel.pipeline.options.types import SCHEMES


@dataclass(frozen=True, kw_only=True)
class FetchRights:
    """Permissions to fetch. The options recorded in an output grant none, because their author is unknown."""

    allow_http: bool = flag(help="fetch http:// and https:// URIs")
    allow_private_hosts: bool = flag(help="fetch from private and link-local addresses too")
    allowed_schemes: tuple[str, ...] | None = option(
        SCHEMES,
        metavar="NAMES",
        help="fetch images only from these, such as gs,https; file stands for local paths (default: those of the run)",
    )
