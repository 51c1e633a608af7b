"""Foreign lists that name files of this machine: no content of these files gets into the output."""

from pathlib import Path

import pytest

from beamlabel.pipeline.errors import UsageError
from beamlabel.pipeline.options.parser import parse
from support.jobs import label, photos

ARGUMENTS = ("--input", "a", "--module", "m", "--output", "o", "--allowed_schemes")


def test_local_references_can_be_forbidden(tmp_path):
    path = photos(tmp_path / "photos", 1)[0]
    lines = [str(path), f"file://{path}", "photo.png", "/etc/passwd", "/proc/self/environ", "s3://b/a.jpg"]
    (tmp_path / "list.txt").write_text("\n".join(lines))
    job = label(
        tmp_path / "out",
        "--input",
        tmp_path / "list.txt",
        "--allowed_schemes",
        "gs,https",
        "--max_error_rate",
        1,
    )
    assert job.code == 0
    assert {failure["reason"] for failure in job.failures} == {"scheme_not_allowed"}
    assert len(job.failures) == len(lines)
    job = label(
        tmp_path / "out2",
        "--input",
        tmp_path / "list.txt",
        "--allowed_schemes",
        "FILE",
        "--max_error_rate",
        1,
    )
    assert [row["uri"] for row in job.rows] == lines[:2]
    reasons = [failure["reason"] for failure in job.failures]
    assert reasons == ["not_found", "not_an_image", "not_a_file", "scheme_not_allowed"]


def test_directories_of_images_that_are_not_allowed_are_refused(tmp_path, capfd):
    photos(tmp_path / "photos", 1)
    job = label(tmp_path / "out", "--input", f"{tmp_path}/photos/", "--allowed_schemes", "gs")
    assert job.code == 2
    assert "--allowed_schemes" in capfd.readouterr().err


@pytest.mark.parametrize(
    "given, schemes",
    [("gs,https", ("gs", "https")), ("GS, file,gs", ("gs", "file")), ("s3://,gs://", ("s3", "gs"))],
)
def test_schemes_are_names(given, schemes):
    assert parse([*ARGUMENTS, given])[0].loading.allowed_schemes == schemes


@pytest.mark.parametrize("given", ["", ",", "gs,,s3", "a b", "gs://bucket", "*"])
def test_texts_that_are_no_schemes(given):
    with pytest.raises(UsageError):
        parse([*ARGUMENTS, given])


SECRET = "s3cret:x-s3cret"
HEADS = [b"", b"P3\n", b"P6 ", b"P5\n3 ", b"P7\n", b"/* XPM */\n", b"#define im_width ", b"II*\0", b"BM", b"GIF89a",
         b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff\xe0", b"RIFF1234WEBPVP8 ", b"8BPS\0\1", b"DDS ", b"qoif", b"icns",
         b"\0\0\1\0\1\0", b"\x59\xa6\x6a\x95", b"Pf\n", b"PF\n3 2\n", b"P1\n2 2\n", b"P2\n2 2\n9\n", b"BLP2", b"<svg ",
         b"\0\0\0\x0cjP  \r\n\x87\n", b"\xff\x4f\xff\x51", b"SIMPLE  =", b"\x0a\5\1\x08", b"\x01\xda\0\1"]  # fmt: skip


def test_details_hold_nothing_of_the_files(tmp_path):
    names = []
    for number, head in enumerate(HEADS):
        for filler in (SECRET.encode(), (SECRET + "\n").encode() * 40, b" ".join([SECRET.encode()] * 40)):
            path = tmp_path / f"{number}-{len(filler)}.jpg"
            path.write_bytes(head + filler)
            names.append(str(path))
    (tmp_path / "list.txt").write_text("\n".join(names))
    job = label(tmp_path / "out", "--input", tmp_path / "list.txt", "--max_error_rate", 1)
    assert len(job.failures) == len(names)
    for path in Path(tmp_path / "out").rglob("*"):
        assert not path.is_file() or SECRET[:4].encode() not in path.read_bytes(), path
