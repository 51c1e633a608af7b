"""Links from the report to images: web URLs without credentials, files relative to the page, no others."""

import pytest

from beamlabel.pipeline.report.links import Links


def link(uri, *, output="/data/labels/dt=1", base_dir="/data", formats=("text",)):
    files = [{"format": name} for name in formats]
    manifest = {"output": output, "options": {"base_dir": base_dir}, "input_files": files}
    return Links(manifest).of(uri)


@pytest.mark.parametrize(
    ("uri", "wanted"),
    [
        ("https://example.org/a b.jpg?x=1#y", "https://example.org/a%20b.jpg?x=1#y"),
        ("HTTP://example.org:8080/ü.jpg", "HTTP://example.org:8080/%C3%BC.jpg"),
        ("photos/a.jpg", "../../photos/a.jpg"),
        ("/data/labels/dt=1/a.jpg", "./a.jpg"),
        ("file:///data/a%20b.jpg", "../../a%20b.jpg"),
        ("/data/100%?#.jpg", "../../100%25%3F%23.jpg"),
        ("javascript:alert(1)", "../../javascript%3Aalert%281%29"),
        ("/data/labels/dt=1/javascript:x", "./javascript%3Ax"),
    ],
)
def test_files_that_a_browser_can_open(uri, wanted):
    assert link(uri) == wanted


@pytest.mark.parametrize(
    "uri",
    [
        "https://user:word@example.org/a.jpg", "https://user@example.org/a.jpg", "https://h\\@evil.org/a.jpg", "https://",
        "https://example.org/a.jpg?X-Amz-Signature=1", "https://example.org/a.jpg?token=abc", "http://[::1/a.jpg",
        "gs://bucket/a.jpg", "s3://bucket/a.jpg", "ftp://host/a.jpg", "file://host/a.jpg", "javascript://x/%0aalert(1)",
        "photos.tar#a.jpg", "/data/photos.tar.gz#b/a.jpg", "/data/photos.ZIP#a.jpg", "a\\udcff.jpg", "a\0.jpg", None,
        f"https://example.org/{'x' * 3000}",
    ],
)  # fmt: skip
def test_images_without_a_link(uri):
    assert link(uri) is None


def test_files_of_another_machine_get_no_link():
    assert link("/data/a.jpg", output="gs://bucket/out") is None
    assert link("a.jpg", base_dir="gs://bucket/photos") is None
    assert link("a.jpg", base_dir=None) is None
    assert link("https://example.org/a.jpg", output="gs://bucket/out") == "https://example.org/a.jpg"


def test_names_inside_a_table_are_no_files():
    assert link("a.jpg", formats=["parquet"]) is None
    assert link("/data/a.jpg", formats=["parquet"]) == "../../a.jpg"
