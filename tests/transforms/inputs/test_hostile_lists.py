"""Lists with invalid content: each line is a reference that fails, or an error names the file."""

import gzip
import io
import tarfile

import pytest

from beamlabel.transforms.inputs.file_kinds import content_format
from beamlabel.transforms.inputs.text_blocks import read_lines
from beamlabel.transforms.loading.fetch import FetchOptions, fetch
from beamlabel.transforms.records import ImageError, Reason
from support import images

LIST = b"photos/a.jpg\nphotos/b.jpg\n"


def tar_of(data):
    sink = io.BytesIO()
    with tarfile.open(fileobj=sink, mode="w") as tar:
        info = tarfile.TarInfo("a.jpg")
        info.size = len(data)
        tar.addfile(info, io.BytesIO(data))
    return sink.getvalue()


@pytest.mark.parametrize(
    ("content", "kind"),
    [
        (LIST, "text"),
        (b"", "text"),
        ("\ufeff" + LIST.decode(), "text"),
        (LIST.decode().encode("utf-16"), "text"),
        (tar_of(LIST), "tar"),
        (gzip.compress(LIST, mtime=0), "binary"),
        (images.encode(images.photo(), "JPEG"), "binary"),
        (images.encode(images.photo(), "PNG"), "binary"),
        (b"PAR1" + bytes(100), "binary"),
        (b"\x28\xb5\x2f\xfd" + LIST, "binary"),
        (b"PK\3\4" + bytes(40), "binary"),
        (bytes(5000), "binary"),
    ],
)
def test_gzip_files_are_looked_into(content, kind):
    content = content.encode() if isinstance(content, str) else content
    packed = gzip.compress(content)
    assert content_format(packed[:4096]) == kind
    if kind == "text":
        assert content_format(packed[:11]) == "text", "for a truncated file the reader's message has more"


@pytest.mark.parametrize(
    ("text", "found"),
    [
        (b"\xef\xbb\xbfa.jpg\n", ["a.jpg"]),
        (b"a.jpg\n\xef\xbb\xbfb.jpg\n", ["a.jpg", "\ufeffb.jpg"]),
        (b"a\0b.jpg\nc.jpg", ["a\0b.jpg", "c.jpg"]),
        (b"a.jpg\rb.jpg\r", ["a.jpg\rb.jpg"]),
        (b"a.jpg\n\r\n\x0b\n \t \n#x\n", ["a.jpg", None, None, None, None]),
        (b"caf\xe9.jpg\n", ["caf\ufffd.jpg"]),
    ],
)
def test_lines_are_taken_as_they_are(tmp_path, text, found):
    (tmp_path / "list.txt").write_bytes(text)
    assert list(read_lines(str(tmp_path / "list.txt"))) == found


@pytest.mark.parametrize(
    "name",
    ["a\0b.jpg", "\0", "a.jpg\rb.jpg", "a.jpg\nb.jpg", "\udcff.jpg", "\ud800.jpg", "\ufffd.jpg", "x" * 60_000,
     "/".join(["x"] * 30_000), "\x1b[2J.jpg", "..", "~/a.jpg", "$HOME/a.jpg", "a.jpg "],
    ids=ascii,
)  # fmt: skip
@pytest.mark.parametrize(
    "place", ["{directory}/", "gs://", "s3://bucket/", "https://", "nosuch://", "hdfs://", ""]
)
def test_a_reference_of_any_characters_is_a_failure_with_a_reason(tmp_path, name, place, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ImageError) as caught:
        fetch(
            place.format(directory=tmp_path) + name, FetchOptions(allowed_schemes=("file", "https", "nosuch"))
        )
    assert caught.value.reason in (
        Reason.NOT_FOUND, Reason.NOT_A_FILE, Reason.NOT_ALLOWED, Reason.UNSUPPORTED_SCHEME,
        Reason.SCHEME_NOT_ALLOWED, Reason.INVALID_URI,
    ), caught.value  # fmt: skip
    assert caught.value.detail.isprintable()
