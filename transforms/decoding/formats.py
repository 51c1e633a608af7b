"""Chooses the reader by an image's first bytes, and names known formats that are not decoded."""

from __future__ import annotations

import re
from collections.abc import Callable

from beamlabel.transforms.decoding.picture.limits import need_limits
from beamlabel.transforms.decoding.picture.options import DecodeOptions, Picture, refusal
from beamlabel.transforms.decoding.readers.bmp import is_dib, read_bmp
from beamlabel.transforms.decoding.readers.icons import is_xbm, read_icns, read_icon, read_xbm
from beamlabel.transforms.decoding.readers.jpeg2000 import BOXES, CODESTREAM, read_jpeg2000
from beamlabel.transforms.decoding.readers.older import is_pcx, is_tga, read_pcx, read_sgi, read_sun, read_tga
from beamlabel.transforms.decoding.readers.png import SIGNATURE, read_png
from beamlabel.transforms.decoding.readers.pnm import is_pnm, read_pnm
from beamlabel.transforms.decoding.readers.psd import read_psd
from beamlabel.transforms.decoding.readers.textures import read_dds, read_qoi
from beamlabel.transforms.decoding.readers.tiff import read_tiff
from beamlabel.transforms.decoding.readers.web import read_avif, read_gif, read_webp
from beamlabel.transforms.records import Reason

_Reader = Callable[[bytes, DecodeOptions], Picture]

_SIGNATURES: tuple[tuple[bytes, _Reader], ...] = (
    (SIGNATURE, read_png),
    (b"GIF87a", read_gif),
    (b"GIF89a", read_gif),
    (b"II*\0", read_tiff),
    (b"MM\0*", read_tiff),
    (b"II+\0", read_tiff),
    (b"MM\0+", read_tiff),
    (b"8BPS", read_psd),
    (b"\0\0\1\0", read_icon),
    (b"icns", read_icns),
    (BOXES, read_jpeg2000),
    (CODESTREAM, read_jpeg2000),
    (b"DDS ", read_dds),
    (b"qoif", read_qoi),
    (b"\x59\xa6\x6a\x95", read_sun),
    (b"\x01\xda", read_sgi),
)

# Known formats that are not decoded: (offset, bytes, name). Some have no decoder here; for the others there was no
# independent reader to compare with.
_NOT_DECODED = (
    (0, b"%!PS", "EPS"),
    (0, b"\xc5\xd0\xd3\xc6", "EPS"),
    (0, b"%PDF", "PDF"),
    (0, b"\xd7\xcd\xc6\x9a", "WMF"),
    (40, b" EMF", "EMF"),
    (0, b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", "FPX or MIC (an OLE file)"),
    (0, b"\xff\x0a", "JPEG XL"),
    (0, b"\x00\x00\x00\x0cJXL ", "JPEG XL"),
    (0, b"II\xbc", "JPEG XR"),
    (0, b"v/1\x01", "OpenEXR"),
    (0, b"#?RADIANCE", "Radiance HDR"),
    (0, b"#?RGBE", "Radiance HDR"),
    (0, b"GRIB", "GRIB"),
    (0, b"BUFR", "BUFR"),
    (0, b"\x89HDF\r\n\x1a\n", "HDF5"),
    (0, b"\x00\x00\x01\xb3", "MPEG"),
    (0, b"\x00\x00\x01\xba", "MPEG"),
    (0, b"BLP1", "BLP"),
    (0, b"BLP2", "BLP"),
    (0, b"\xb1\x68\xde\x3a", "DCX"),
    (0, b"/* XPM */", "XPM"),
    (0, b"P7\n", "PAM"),
    (0, b"P7 332", "XV thumbnail"),
    (0, b"PF\n", "PFM (floats have no agreed range)"),
    (0, b"Pf\n", "PFM (floats have no agreed range)"),
    (0, b"SIMPLE  =", "FITS"),
    (0, b"DanM", "MSP"),
    (0, b"LinS", "MSP"),
    (0, b"\x80\xe8\0\0", "PIXAR"),
    (0, b"FTEX", "FTEX"),
    (0, b"FTU\0", "FTEX"),
    (20, b"GIMP", "GBR"),
    (2048, b"PCD_", "Photo CD"),
    (0, b"gimp xcf", "XCF"),
    (0, b"farbfeld", "farbfeld"),
    (0, b"AT&TFORM", "DjVu"),
    (0, b"SDPX", "DPX"),
    (0, b"XPDS", "DPX"),
    (0, b"\x80\x2a\x5f\xd7", "Cineon"),
    (0, b"\xabKTX ", "KTX"),
    (0, b"BPG\xfb", "BPG"),
    (0, b"FLIF", "FLIF"),
    (0, b"FUJIFILMCCD-RAW", "a camera's raw file"),
    (0, b"IIRO", "a camera's raw file"),
    (0, b"IIRS", "a camera's raw file"),
    (0, b"IIU\0", "a camera's raw file"),
    (0, b"\0MRM", "a camera's raw file"),
    (0, b"FOVb", "a camera's raw file"),
    (0, b"\x8aMNG\r\n\x1a\n", "MNG"),
    (0, b"\x8bJNG\r\n\x1a\n", "JNG"),
    (128, b"DICM", "DICOM"),
    (0, b"id=ImageMagick", "MIFF"),
    (0, b"LBLSIZE=", "VICAR"),
    (0, b"! XPM2", "XPM"),
    (0, b"\x13\xab\xa1\x5c", "ASTC"),
    (0, b"PVR\x03", "PVR"),
    (0, b"\x97JB2\r\n\x1a\n", "JBIG2"),
    (4, b"\0\0\0\7\0\0\0\2", "XWD"),
)
_HEIF_BRANDS = (b"heic", b"heix", b"hevc", b"hevx", b"heim", b"heis", b"mif1", b"msf1", b"crx ")

# Parts that may precede the root element of an XML file: a byte order mark, declarations, comments, a document type.
_PROLOGUE = re.compile(
    rb"(?:\xef\xbb\xbf)?(?:\s+|<\?.*?\?>|<!--.*?-->|<!DOCTYPE\s[^\[>]*(?:\[.*?\]\s*)?>)*", re.DOTALL | re.I
)
_SVG = re.compile(rb"<(?:[\w.-]+:)?svg[\s>/]", re.I)
_SVG_PROLOGUE_BYTES = 1 << 20


def read_picture(data: bytes, options: DecodeOptions) -> Picture:
    """Decodes an image of any format but JPEG.

    Raises:
      ImageError: ``not_an_image``, ``truncated``, ``corrupt``, ``unsupported_format`` or ``too_many_pixels``.
      NeedsLimitsError: the image is neither PNG nor WebP, or may take long.
    """
    reader = _reader(data)
    if reader is None:
        name = _not_decoded(data)
        if name is not None:
            raise refusal(Reason.UNSUPPORTED_FORMAT, f"{name} is not supported")
        raise refusal(Reason.NOT_AN_IMAGE, f"unknown image format{_content_kind(data)}")
    if reader not in (read_png, read_webp):
        need_limits()
    return reader(data, options)


def _content_kind(data: bytes) -> str:
    """The kind of other content, for a failure's detail; without its bytes, which may be secret."""
    head = data[:256].lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if head.startswith((b"<!doctype html", b"<html")):
        return "; the file is an HTML page"
    if head.startswith(b"<?xml"):
        return "; the file is XML"
    if head[:1] in (b"{", b"["):
        return "; the file may be JSON"
    return ""


def _reader(data: bytes) -> _Reader | None:
    for signature, reader in _SIGNATURES:
        if data.startswith(signature):
            return reader
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return read_webp
    if data[4:8] == b"ftyp":
        brands = _brands(data)
        return read_avif if b"avif" in brands or b"avis" in brands else None
    # A TGA may begin like a cursor; only the number of pictures tells them apart.
    if data[:4] == b"\0\0\2\0" and data[4:6] != b"\0\0":
        return read_icon
    # A BMP's header has at most 255 bytes; other data are a text that begins with BM.
    if data[:2] == b"BM" and not data[15:18].strip(b"\0"):
        return read_bmp
    if _not_decoded(data) is not None:
        return None
    for fits, reader in ((is_pnm, read_pnm), (is_xbm, read_xbm), (is_dib, read_bmp), (is_pcx, read_pcx)):
        if fits(data):
            return reader
    return read_tga if is_tga(data) else None


def _not_decoded(data: bytes) -> str | None:
    """The name of a known format that is not decoded here, or None."""
    for offset, magic, name in _NOT_DECODED:
        if data.startswith(magic, offset):
            return name
    if data[4:8] == b"ftyp":
        brands = _brands(data)
        # Still pictures with another major brand list one of these two as compatible.
        return "HEIF" if brands[:4] in _HEIF_BRANDS or {b"mif1", b"msf1"} & _four(brands) else None
    if data[4:6] in (b"\x11\xaf", b"\x12\xaf") and data[14:16] in (b"\0\0", b"\3\0"):
        return "FLI"
    head = data[:_SVG_PROLOGUE_BYTES]
    if head[:2] in (b"\xff\xfe", b"\xfe\xff"):
        head = head.decode("utf-16", "replace").encode()
    prologue = _PROLOGUE.match(head)
    return "SVG" if prologue and _SVG.match(head, prologue.end()) else None


def _four(brands: bytes) -> set[bytes]:
    return {brands[at : at + 4] for at in range(0, len(brands), 4)}


def _brands(data: bytes) -> bytes:
    return data[8 : max(12, int.from_bytes(data[:4], "big"))][:256]
