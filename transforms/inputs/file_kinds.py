"""The kind of an input file, from its first bytes."""

from __future__ import annotations

import re
import zlib

from beamlabel.transforms.inputs.archives.open_archive import TAR, ZIP
from beamlabel.transforms.inputs.archives.tar import BLOCK, is_tar
from beamlabel.transforms.inputs.archives.zip import EMPTY_MAGIC, LOCAL_MAGIC
from beamlabel.transforms.inputs.text_blocks import GZIP_MAGIC, UTF16_MARKS, ZSTD_MAGIC

HEAD_BYTES = 4096
"""The number of first bytes needed; a tar, also a compressed one, shows in its first header."""
IMAGE_HEAD_BYTES = 64
"""The number of first bytes needed for an image."""

# Signatures that a list of URIs never begins with by chance.
_NO_LIST = (
    rb"\xff\xd8\xff",
    rb"\x89PNG\r\n\x1a\n",
    rb"GIF8[79]a",
    rb"RIFF....WEBP",
    rb"BM.{4}\x00\x00\x00\x00",
    rb"(?:II|MM)(?:\*\x00|\x00\*|\+\x00|\x00\+)",
    rb"....ftyp(?:avi[fs]|hei[cxms]|hev[cx]|mif1|msf1)",
    rb"8BPS\x00[\x01\x02]",
    rb"\x00\x00\x00\x0cjP  \r\n\x87\n",
    rb"\xff\x4f\xff\x51",
    rb"\x00\x00\x00\x0cJXL ",
)
# The other decoded formats with a signature, and formats that are recognized as images although not decoded.
_SHORT = (
    rb"\x00\x00\x01\x00[^\x00]\x00",
    rb"icns",
    rb"DDS \x7c",
    rb"qoif",
    rb"P[1-6]\s",
    rb"\x59\xa6\x6a\x95",
    rb"\x01\xda[\x00\x01][\x01\x02]",
    rb"\xff\x0a",
    rb"\s*(?:<\?xml[^>]*>\s*)?<svg[\s>]",
)
# Documents and compressed files whose beginning may hold no NUL.
_OTHERS = (b"%PDF-", b"BZh")
_LISTED_IMAGE = re.compile(b"|".join(_NO_LIST), re.DOTALL)
_IMAGE = re.compile(b"|".join((*_NO_LIST, *_SHORT)), re.DOTALL)


def is_image(head: bytes) -> bool:
    """Whether a file begins like an image, from its first ``IMAGE_HEAD_BYTES``."""
    return _IMAGE.match(head[:IMAGE_HEAD_BYTES]) is not None


def content_format(head: bytes) -> str:
    """``parquet``, ``image``, ``tar``, ``zip``, ``text`` or ``binary``, from the first ``HEAD_BYTES`` of a file.

    A tar in gzip is a ``tar``; with other compressions it is ``binary``, see ``is_compressed_tar``. Anything else in
    gzip that is not text is ``binary``, too.
    """
    if head.startswith((b"PAR1", b"PARE")):  # the latter with an encrypted footer
        return "parquet"
    if is_tar(head):  # the checksum matches, so it is not an image
        return TAR
    if _LISTED_IMAGE.match(head[:IMAGE_HEAD_BYTES]):
        return "image"
    if head.startswith((LOCAL_MAGIC, EMPTY_MAGIC)):
        return ZIP
    if head.startswith(GZIP_MAGIC):
        inner = _gunzipped(head)
        # A list that was compressed twice would read as nonsense, and so would an image in gzip.
        is_text = not inner.startswith((GZIP_MAGIC, ZSTD_MAGIC)) and content_format(inner) == "text"
        return TAR if is_tar(inner) else "text" if is_text else "binary"
    if head.startswith((ZSTD_MAGIC, *UTF16_MARKS)):
        return "text"
    if head.startswith(_OTHERS) and not _is_utf8(head):
        return "binary"
    return "binary" if b"\0" in head[:IMAGE_HEAD_BYTES] else "text"


def _is_utf8(head: bytes) -> bool:
    # The end may cut a character.
    return "\ufffd" not in head.decode("utf-8", "replace")[:-3]


def _gunzipped(head: bytes) -> bytes:
    try:
        return zlib.decompressobj(31).decompress(head, BLOCK)  # 31: a gzip member
    except zlib.error:
        return b""
