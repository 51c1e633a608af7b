"""The kind of an input file, by its first bytes."""

from __future__ import annotations

import re

from beamlabel.transforms.inputs.text_source import GZIP_MAGIC

_IMAGE_MAGIC = re.compile(
    rb"\xff\xd8\xff|\x89PNG\r\n\x1a\n|GIF8[79]a|RIFF....WEBP|BM.{4}\0\0\0\0|II\*\0|MM\0\*|....ftypavi[fs]",
    re.DOTALL,
)


def content_format(head: bytes) -> str:
    """``parquet``, ``image``, ``text`` or ``binary``, by the first bytes of a file."""
    if head.startswith(b"PAR1"):
        return "parquet"
    if _IMAGE_MAGIC.match(head):
        return "image"
    if head.startswith(GZIP_MAGIC):
        return "text"
    return "binary" if b"\0" in head else "text"
