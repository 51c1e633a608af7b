"""Color profiles: converted to sRGB like LittleCMS in every format with profiles, or ignored."""

from __future__ import annotations

import io
import struct
import zlib
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from PIL import Image, ImageCms

from beamlabel.transforms.decoding.decode import DecodeOptions, decode
from beamlabel.transforms.decoding.picture import color
from beamlabel.transforms.records import ImageError, Reason
from support import images
from support.color_profiles import cmyk_profile, gray_profile

NATIVE = DecodeOptions(90, 120)
IGNORE = DecodeOptions(90, 120, color_profile="ignore")
SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
P3 = color.profile_of_code_points(12, 13)
BT2020 = color.profile_of_code_points(9, 1)
assert P3 and BT2020


CMYK = cmyk_profile()


def by_littlecms(image: Image.Image, profile: bytes) -> np.ndarray:
    source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
    return np.asarray(
        ImageCms.profileToProfile(image, source, ImageCms.createProfile("sRGB"), outputMode="RGB")
    ).astype(int)


def tiff_options(profile: bytes) -> dict[str, object]:
    return {"icc_profile": profile, "compression": "tiff_lzw"}


FORMATS = {
    "JPEG": lambda p: {"icc_profile": p, "quality": 95, "subsampling": 0},
    "PNG": lambda p: {"icc_profile": p},
    "WEBP": lambda p: {"icc_profile": p, "lossless": True},
    "TIFF": tiff_options,
    "AVIF": lambda p: {"icc_profile": p, "quality": 100, "subsampling": "4:4:4"},
}


def psd(profile: bytes) -> bytes:
    resource = b"8BIM" + struct.pack(">H", 1039) + b"\0\0" + struct.pack(">I", len(profile)) + profile
    resource += bytes(len(profile) % 2)
    head = b"8BPS" + struct.pack(">H6xHIIHH", 1, 3, 90, 120, 8, 3) + bytes(4)
    planes = np.moveaxis(np.asarray(images.photo()), -1, 0).tobytes()
    return head + struct.pack(">I", len(resource)) + resource + bytes(4) + b"\0\0" + planes


def bmp(profile: bytes) -> bytes:
    pixels = np.asarray(images.photo())[::-1, :, ::-1].tobytes()
    head = struct.pack("<IiiHHIIiiII", 124, 120, 90, 1, 24, 0, len(pixels), 2835, 2835, 0, 0) + bytes(16)
    head = (head + struct.pack("<I", int.from_bytes(b"MBED", "big"))).ljust(112, b"\0")
    head += struct.pack("<III", 124 + len(pixels), len(profile), 0)
    return b"BM" + struct.pack("<IHHI", 138 + len(pixels), 0, 0, 138) + head + pixels + profile


def encoded(format_: str, profile: bytes) -> bytes:
    if format_ in ("PSD", "BMP"):
        return psd(profile) if format_ == "PSD" else bmp(profile)
    return images.encode(images.photo(), format_, **FORMATS[format_](profile))


ALL = (*FORMATS, "PSD", "BMP")


@pytest.mark.parametrize("format_", ALL)
@pytest.mark.parametrize("profile", [P3, BT2020], ids=["P3", "BT.2020"])
def test_wide_gamut_becomes_srgb(format_, profile):
    data = encoded(format_, profile)
    stored = decode(data, IGNORE)
    expected = by_littlecms(Image.fromarray(stored.pixels), profile)
    converted = decode(data, NATIVE)
    assert converted.color_converted and not stored.color_converted
    assert np.abs(converted.pixels.astype(int) - expected).max() <= 1
    assert np.abs(stored.pixels.astype(int) - expected).mean() > 3


@pytest.mark.parametrize("format_", ALL)
def test_srgb_and_broken_profiles_change_nothing(format_):
    for profile in (SRGB, SRGB[:200], b"no profile at all" * 20):
        data = encoded(format_, profile)
        decoded = decode(data, NATIVE)
        assert not decoded.color_converted
        np.testing.assert_array_equal(decoded.pixels, decode(data, IGNORE).pixels)


def test_a_profile_in_many_segments_of_a_jpeg_and_one_that_lacks_a_part():
    profile = P3 + bytes(150_000)
    profile = len(profile).to_bytes(4, "big") + profile[4:]
    data = encoded("JPEG", profile)
    assert data.count(b"ICC_PROFILE\0") == 3
    assert decode(data, NATIVE).color_converted
    lacking = data.replace(b"ICC_PROFILE\0\2\3", b"ICC_PROFILX\0\2\3")
    assert not decode(lacking, NATIVE).color_converted


def test_a_large_jpeg_is_converted_at_its_fraction():
    large = images.photo().resize((2400, 1800))
    data = images.encode(large, "JPEG", icc_profile=P3)
    small = DecodeOptions(90, 120)
    stored = decode(data, DecodeOptions(90, 120, color_profile="ignore")).pixels
    converted = decode(data, small)
    assert converted.color_converted
    assert np.abs(converted.pixels.astype(int) - by_littlecms(Image.fromarray(stored), P3)).mean() < 1


@pytest.mark.parametrize("format_", ["JPEG", "TIFF"])
def test_cmyk_with_and_without_a_profile(format_):
    ink = Image.fromarray(
        np.dstack((255 - np.asarray(images.photo()), np.full((90, 120), 40, np.uint8))), "CMYK"
    )
    options = {"quality": 98, "subsampling": 0} if format_ == "JPEG" else {}
    plain = decode(images.encode(ink, format_, **options), NATIVE)
    tagged = images.encode(ink, format_, icc_profile=CMYK, **options)
    converted = decode(tagged, NATIVE)
    assert not plain.color_converted and converted.color_converted
    naive = (255 - np.asarray(ink)[..., :3].astype(float)) * (255 - 40) / 255
    assert np.abs(plain.pixels - naive).mean() < 3
    assert np.abs(converted.pixels - by_littlecms(ink, CMYK)).mean() < 3
    assert np.abs(converted.pixels.astype(int) - plain.pixels).mean() > 10
    np.testing.assert_array_equal(decode(tagged, IGNORE).pixels, plain.pixels)


def test_gray_profiles_and_profiles_for_other_channels():
    gray = images.photo().convert("L")
    dark = gray_profile(1.0)
    data = images.encode(gray, "PNG", icc_profile=dark)
    converted = decode(data, NATIVE)
    assert converted.color_converted
    assert np.abs(converted.pixels[..., 0].astype(int) - by_littlecms(gray, dark)[..., 0]).max() <= 1
    assert not decode(encoded("PNG", dark), NATIVE).color_converted  # color with a gray profile
    assert not decode(encoded("PNG", CMYK), NATIVE).color_converted
    jpeg = images.encode(gray, "JPEG", icc_profile=dark)
    assert decode(jpeg, NATIVE).color_converted


def test_alpha_stays_and_colours_are_converted_before_they_go_on_white():
    photo = images.photo().copy()
    photo.putalpha(images.photo().getchannel("R"))
    data = images.encode(photo, "PNG", icc_profile=P3)
    colours = by_littlecms(photo.convert("RGB"), P3)
    share = np.asarray(photo)[..., 3:] / 255
    expected = colours * share + 255 * (1 - share)
    assert np.abs(decode(data, NATIVE).pixels - expected).max() <= 2


def test_a_transparent_palette_is_converted():
    data = images.encode(
        images.photo().quantize(64), "PNG", transparency=bytes(range(0, 256, 4)), icc_profile=P3
    )
    assert decode(data, NATIVE).color_converted


def with_chunk(kind: bytes, content: bytes) -> bytes:
    data = images.encode(images.photo(), "PNG")
    return data[:33] + images.png_chunk(kind, content) + data[33:]


def test_code_points_of_png():
    np.testing.assert_array_equal(
        decode(with_chunk(b"cICP", bytes((12, 13, 0, 1))), NATIVE).pixels,
        decode(encoded("PNG", P3), NATIVE).pixels,
    )
    for points in ((1, 13, 0, 1), (2, 2, 0, 1)):
        assert not decode(with_chunk(b"cICP", bytes(points)), NATIVE).color_converted
    for transfer in (16, 18):
        hdr = with_chunk(b"cICP", bytes((9, transfer, 0, 1)))
        with pytest.raises(ImageError, match="dynamic range") as caught:
            decode(hdr, NATIVE)
        assert caught.value.reason is Reason.UNSUPPORTED_FORMAT
        decode(hdr, IGNORE)


def test_gamma_and_primaries_of_png_are_not_applied():
    plain = decode(images.encode(images.photo(), "PNG"), NATIVE).pixels
    for kind, content in ((b"gAMA", struct.pack(">I", 100000)), (b"cHRM", struct.pack(">8I", *range(8)))):
        decoded = decode(with_chunk(kind, content), NATIVE)
        assert not decoded.color_converted
        np.testing.assert_array_equal(decoded.pixels, plain)


def test_a_profile_that_unpacks_to_gigabytes_is_broken():
    bomb = zlib.compress(bytes(30 << 20))
    assert not decode(with_chunk(b"iCCP", b"icc\0\0" + bomb), NATIVE).color_converted


def test_profiles_that_round_srgb_or_call_themselves_so_are_srgb():
    near = bytearray(color._matrix_profile(((0.6401, 0.33), (0.3, 0.6001), (0.15, 0.06))))
    assert color.is_needless(bytes(near))
    assert color.is_needless(SRGB) and not color.is_needless(P3) and not color.is_needless(CMYK)


def test_transforms_are_bounded_and_serve_many_threads():
    profiles = [P3 + bytes((number,)) for number in range(80)]
    data = [encoded("PNG", profile) for profile in profiles]
    alone = decode(data[0], NATIVE).pixels
    with ThreadPoolExecutor(8) as pool:
        together = list(pool.map(lambda one: decode(one, NATIVE).pixels, data))
    for pixels in together:
        np.testing.assert_array_equal(pixels, alone)
    assert len(color._transforms) <= 32


def test_the_option_is_checked():
    with pytest.raises(ValueError, match="color_profile") as caught:
        DecodeOptions(4, 4, color_profile="always")
    assert "'always'" in str(caught.value)
