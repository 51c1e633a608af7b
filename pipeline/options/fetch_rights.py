"""From where commands may fetch that read an output of somebody else: only the command line allows that."""

from __future__ import annotations

from dataclasses import dataclass

from beamlabel.pipeline.options.declare import flag, option
from beamlabel.pipeline.options.types import SCHEMES


@dataclass(frozen=True, kw_only=True)
class FetchRights:
    """What may be fetched; the options that the run had allow nothing here, since nobody knows who wrote them."""

    allow_http: bool = flag(help="fetch http:// and https:// URIs")
    allow_private_hosts: bool = flag(help="fetch from private and link-local addresses too")
    allowed_schemes: tuple[str, ...] | None = option(
        SCHEMES,
        metavar="NAMES",
        help="fetch no image but of these, such as gs,https; file: local paths (default: those of the run)",
    )
