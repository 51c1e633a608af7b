"""Color profiles: converts pixels of another color space to sRGB, as browsers do.

A profile with the colors of sRGB is recognized by its bytes after the first image that carries it, so further images
with it cost nothing extra. A profile that cannot be read, or that is made for other channels than the image has, is
ignored: browsers show such images too.
"""

from __future__ import annotations

import hashlib
import io
import os
import struct
import threading
from collections import OrderedDict

import numpy as np
from PIL import Image, ImageCms

from beamlabel.transforms.decoding.picture.limits import need_limits
from beamlabel.transforms.decoding.picture.options import refusal
from beamlabel.transforms.records import Reason

MAX_PROFILE_BYTES = 4 << 20
"""Larger profiles count as broken; those of printing presses have 0.5 to 2.5 MB."""

# Number of cached transforms; one for a printing press takes about 1 MB.
_KEPT = 32
# How far, in levels of 255, a profile's colors may differ from sRGB's before it counts as another color space.
# Profiles that only round sRGB's numbers differ by 1 or 2. Profiles named sRGB that simplify its curve (a power of 2.2)
# differ by up to 7 in the darkest shades.
_SAME, _SAME_BY_NAME = 2, 8
_SPACES = {"GRAY": "L", "RGB ": "RGB", "CMYK": "CMYK"}
# Device links, abstract and named-color profiles describe no image.
_CLASSES = ("scnr", "mntr", "prtr", "spac")

_transforms: OrderedDict[bytes, tuple[str, ImageCms.ImageCmsTransform] | None] = OrderedDict()
_lock = threading.Lock()


def _new_lock() -> None:
    global _lock
    _lock = threading.Lock()


os.register_at_fork(after_in_child=_new_lock)


def to_srgb(image: Image.Image, profile: bytes | None) -> Image.Image | None:
    """The image in sRGB, or None if nothing needs conversion. Thread-safe.

    Args:
      image: of mode L, LA, RGB, RGBA or CMYK (0 is no ink), 8 bits.
      profile: an ICC profile (ICC.1:2022), for gray, RGB or CMYK.

    Returns:
      An image of mode RGB or RGBA; alpha stays as it is. Gray with a profile for RGB counts as equal parts of red,
      green and blue.
    """
    if not profile:
        return None
    found = _transform(profile)
    if found is None:
        return None
    mode, transform = found
    alpha = image.getchannel("A") if image.mode in ("LA", "RGBA") else None
    plain = {"LA": "L", "RGBA": "RGB"}.get(image.mode, image.mode)
    if mode != plain and (mode, plain) != ("RGB", "L"):
        return None
    source = image if image.mode == mode else image.convert(mode)
    result = transform.apply(source)
    if alpha is not None:
        result.putalpha(alpha)
    return result


def is_needless(profile: bytes | None) -> bool:
    """Whether ``to_srgb`` would convert no image with this profile: it is missing, sRGB's, or broken."""
    return not profile or _transform(profile) is None


def _transform(profile: bytes) -> tuple[str, ImageCms.ImageCmsTransform] | None:
    """The mode that the profile is for and the transform to sRGB; None if its colors are sRGB's or it is broken."""
    key = hashlib.blake2b(profile, digest_size=16).digest()
    with _lock:
        if key in _transforms:
            _transforms.move_to_end(key)
            return _transforms[key]
    built = _build(profile)
    with _lock:
        _transforms[key] = built
        while len(_transforms) > _KEPT:
            _transforms.popitem(last=False)
    return built


def _build(profile: bytes) -> tuple[str, ImageCms.ImageCmsTransform] | None:
    if not 128 < len(profile) <= MAX_PROFILE_BYTES:
        return None
    if b"mpet" in profile:  # any number of steps, which LittleCMS runs for each of many colors
        need_limits()
    try:
        source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        mode = _SPACES.get(source.profile.xcolor_space)
        if mode is None or source.profile.device_class not in _CLASSES:
            return None
        srgb = ImageCms.createProfile("sRGB")
        transform = ImageCms.buildTransform(source, srgb, mode, "RGB", ImageCms.Intent.PERCEPTUAL)
        # Two profiles of one scanner may share a name. One called sRGB counts as sRGB if its numbers are close.
        name = (source.profile.profile_description or "").strip().lower()
    except Exception:  # LittleCMS and Pillow may raise anything; broken profiles are ignored
        return None
    if mode == "CMYK":
        return mode, transform
    difference = _difference(mode, transform)
    limit = _SAME_BY_NAME if name.startswith("srgb") else _SAME
    return None if difference <= limit else (mode, transform)


def _difference(mode: str, transform: ImageCms.ImageCmsTransform) -> int:
    """The largest change that the transform makes to any of 32 grays, or of 9 × 9 × 9 colors."""
    if mode == "L":
        values = np.linspace(0, 255, 32).astype(np.uint8)[np.newaxis]
        expected = np.repeat(values[:, :, np.newaxis], 3, axis=2)
    else:
        steps = np.linspace(0, 255, 9).astype(np.uint8)
        values = expected = np.stack(np.meshgrid(steps, steps, steps), axis=-1).reshape(27, 27, 3)
    result = np.asarray(transform.apply(Image.fromarray(values)))
    return int(np.abs(result.astype(int) - expected).max())


# Code points of ITU-T H.273: primaries (x, y of red, green, blue; white is D65) other than sRGB's.
_PRIMARIES = {
    9: ((0.708, 0.292), (0.170, 0.797), (0.131, 0.046)),  # BT.2020
    12: ((0.680, 0.320), (0.265, 0.690), (0.150, 0.060)),  # Display P3
}
_BT709, _UNSPECIFIED = 1, 2
_SRGB_LIKE_CURVES = (1, 2, 6, 13, 14, 15)  # video curves count as sRGB's, as in browsers
_HDR_CURVES = {16: "PQ", 18: "HLG"}
_D50 = np.array((0.9642, 1.0, 0.8249))
_D65 = np.array((0.3127 / 0.3290, 1.0, (1 - 0.3127 - 0.3290) / 0.3290))
_BRADFORD = np.array(((0.8951, 0.2664, -0.1614), (-0.7502, 1.7135, 0.0367), (0.0389, -0.0685, 1.0296)))


def profile_of_code_points(primaries: int, transfer: int) -> bytes | None:
    """The profile of a color space given as code points (PNG's cICP, AVIF's nclx: ITU-T H.273).

    Returns:
      An ICC profile; None for sRGB, BT.709 and unspecified code points.

    Raises:
      ImageError: ``unsupported_format`` for PQ and HLG, which have no agreed conversion to 8 bits, and for unknown
        color spaces.
    """
    if transfer in _HDR_CURVES:
        name = _HDR_CURVES[transfer]
        raise refusal(
            Reason.UNSUPPORTED_FORMAT, f"high dynamic range ({name}) has no agreed conversion to 8 bits"
        )
    if primaries in (_BT709, _UNSPECIFIED) and transfer in _SRGB_LIKE_CURVES:
        return None
    if primaries not in _PRIMARIES or transfer not in _SRGB_LIKE_CURVES:
        detail = f"colors of primaries {primaries} and transfer {transfer} (ITU-T H.273) are not converted"
        raise refusal(Reason.UNSUPPORTED_FORMAT, detail)
    return _matrix_profile(_PRIMARIES[primaries])


def _matrix_profile(primaries: tuple[tuple[float, float], ...]) -> bytes:
    """An ICC profile (ICC.1:2022, version 4) of three primaries and sRGB's curve, white adapted to D50."""
    columns = np.array([(x / y, 1.0, (1 - x - y) / y) for x, y in primaries]).T
    rgb_to_xyz = columns * np.linalg.solve(columns, _D65)
    adapt = np.linalg.solve(_BRADFORD, np.diag(_BRADFORD @ _D50 / (_BRADFORD @ _D65)) @ _BRADFORD)

    def fixed(*numbers: float) -> bytes:
        return struct.pack(f">{len(numbers)}i", *(round(number * 65536) for number in numbers))

    curve = b"para\0\0\0\0\0\3\0\0" + fixed(2.4, 1 / 1.055, 0.055 / 1.055, 1 / 12.92, 0.04045)
    text = "code points".encode("utf-16-be")
    description = b"mluc\0\0\0\0" + struct.pack(">II2s2sII", 1, 12, b"en", b"US", len(text), 28) + text
    tags = [(b"desc", description), (b"cprt", description), (b"wtpt", b"XYZ \0\0\0\0" + fixed(*_D50))]
    for name, column in zip((b"rXYZ", b"gXYZ", b"bXYZ"), (adapt @ rgb_to_xyz).T, strict=True):
        tags.append((name, b"XYZ \0\0\0\0" + fixed(*column)))
    tags += [(name, curve) for name in (b"rTRC", b"gTRC", b"bTRC")]
    table, body, start = struct.pack(">I", len(tags)), b"", 128 + 4 + 12 * len(tags)
    for name, content in tags:
        table += name + struct.pack(">II", start + len(body), len(content))
        body += content + bytes(-len(content) % 4)
    head = struct.pack(">I4sI4s4s4s", start + len(body), b"\0\0\0\0", 0x04300000, b"mntr", b"RGB ", b"XYZ ")
    head += bytes(12) + b"acsp" + bytes(28) + fixed(*_D50)
    return head.ljust(128, b"\0") + table + body
