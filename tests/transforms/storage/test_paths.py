"""The functions of ``storage`` on paths alone: local, absolute, and below a directory."""

from __future__ import annotations

from pathlib import Path

import pytest

from beamlabel.transforms import storage


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("/a/b", "/a/b"),
        ("/a/b/", "/a/b/"),
        ("/a/./b/../c", "/a/c"),
        ("/", "/"),
        ("file:///a%20b/%C3%A9%23.jpg", "/a b/é#.jpg"),
        ("file:///a#b?c", "/a#b?c"),
        ("file://localhost/a/", "/a/"),
        ("gs://b/x%20y", "gs://b/x%20y"),
        ("s3://b/./x", "s3://b/./x"),
        ("/12:30 x://y.jpg", "/12:30 x:/y.jpg"),
    ],
)
def test_absolute(path: str, expected: str) -> None:
    assert storage.absolute(path) == expected


def test_absolute_of_relative_paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert storage.absolute("a:b.txt") == str(tmp_path / "a:b.txt")
    assert storage.absolute("photos/") == f"{tmp_path}/photos/"


def test_a_file_uri_of_another_machine_is_refused() -> None:
    with pytest.raises(ValueError, match="server"):
        storage.absolute("file://server/share/a.jpg")


@pytest.mark.parametrize(
    ("path", "local"),
    [("a/b", True), ("file:///a", True), ("a:b", True), ("gs://b/a", False), ("s3://b/a", False)],
)
def test_is_local(path: str, local: bool) -> None:
    assert storage.is_local(path) == local


@pytest.mark.parametrize(
    ("parts", "expected"),
    [
        (("/a", "b", "c.txt"), "/a/b/c.txt"),
        (("/a/", "b"), "/a/b"),
        (("/", "b"), "/b"),
        (("gs://bucket", "b"), "gs://bucket/b"),
        (("s3://bucket/", "a", "b%20"), "s3://bucket/a/b%20"),
        (("file:///x%20y", "50%20.txt"), "/x y/50%20.txt"),
    ],
)
def test_join(parts: tuple[str, ...], expected: str) -> None:
    assert storage.join(*parts) == expected


@pytest.mark.parametrize(
    "path",
    [
        "/",
        "file:///",
        "gs://bucket",
        "gs://bucket/",
        "gs://bucket//",
        "disk://",
        "disk:///",
        "s3://bucket",
        "s3://bucket//",
    ],
)
def test_nobody_deletes_everything(path: str) -> None:
    with pytest.raises(ValueError, match="refusing to delete"):
        storage.delete_tree(path)


def test_an_unknown_scheme() -> None:
    with pytest.raises(ValueError, match="nowhere://a/b"):
        storage.read_bytes("nowhere://a/b")
