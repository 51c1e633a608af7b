import io

import pytest
from PIL import Image

from beamlabel.transforms.inputs.file_kinds import HEAD_BYTES, content_format, is_image
from beamlabel.transforms.inputs.sources.image_files import FileKind, kind_by_content, kind_by_name


@pytest.mark.parametrize(
    ("kind", "paths"),
    [
        (FileKind.IMAGE, ["a.jpg", "A.JPEG", "_DSC0001.JPG", "b/c.png", "a.b.webp", "raw.CR2", "x.heic", "logo.svg"]),
        (FileKind.HIDDEN, [".DS_Store", "b/.DS_Store", "._a.jpg", "Thumbs.db", "b/thumbs.db", "Desktop.ini",
                           "@eaDir/a.jpg/SYNOPHOTO_THUMB_XL.jpg", "__MACOSX/._a.jpg", ".git/a.png", "b/.cache/c.jpg",
                           "$RECYCLE.BIN/a.jpg", "#recycle/a.jpg", "Icon\r"]),
        (FileKind.OTHER, ["a.json", "a.jpg.xmp", "README.md", "labels.csv", "b/movie.MP4", "x.tar", "y.parquet"]),
        (FileKind.UNKNOWN, ["a", "b/0f3a9c", "n01440764_18", "photo.2026", "a.jpg.original", "jpg", "a."]),
    ],
)  # fmt: skip
def test_kinds_by_name(kind, paths):
    assert {path: kind_by_name(path) for path in paths} == dict.fromkeys(paths, kind)


@pytest.mark.parametrize(
    "format",
    ["JPEG", "PNG", "GIF", "WEBP", "BMP", "TIFF", "ICO", "PPM", "SGI", "JPEG2000", "AVIF", "ICNS", "DDS"],
)
def test_images_are_recognized_by_their_first_bytes(tmp_path, format):
    data = io.BytesIO()
    Image.new("RGB", (64, 64), (200, 30, 40)).save(data, format)
    assert is_image(data.getvalue()[:HEAD_BYTES])
    (tmp_path / "name").write_bytes(data.getvalue())
    assert kind_by_content(str(tmp_path / "name")) is FileKind.IMAGE


@pytest.mark.parametrize(
    ("content", "kind"),
    [
        (b"", FileKind.OTHER),
        (b"gs://bucket/a.jpg\n", FileKind.OTHER),
        (b"PAR1", FileKind.OTHER),
        (b"\x1f\x8b\x08\0", FileKind.OTHER),
        (b"%PDF-1.7", FileKind.OTHER),
        (b"Photos of 2026\n", FileKind.OTHER),
        (b"BMW.jpg\nAudi.jpg\n", FileKind.OTHER),
        (b"IIa", FileKind.OTHER),
        (b"<?xml version='1.0'?>\n<svg xmlns='x'/>", FileKind.IMAGE),
        (b"<?xml version='1.0'?>\n<x:xmpmeta/>", FileKind.OTHER),
    ],
)
def test_other_content(tmp_path, content, kind):
    (tmp_path / "name").write_bytes(content)
    assert kind_by_content(str(tmp_path / "name")) is kind


def test_a_file_that_cannot_be_read_is_an_image_and_fails_as_such(tmp_path):
    assert kind_by_content(str(tmp_path / "gone")) is FileKind.IMAGE


@pytest.mark.parametrize("line", ["P5 a.jpg", "icns/a.jpg", "qoif.jpg", "<svg>.jpg"])
def test_a_list_is_no_image_though_it_begins_like_one(line):
    assert content_format(f"{line}\nb.jpg\n".encode()) == "text"
