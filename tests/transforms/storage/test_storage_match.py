"""``storage.match``: what a pattern names, on local trees and on a bucket alike; and the oddities of each."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from beamlabel.transforms import storage
from support.gcs_server import Bucket

# In the order in which every backend lists them.
FILES = [
    "a.jpg",
    "a/1.jpg",
    "a/2.png",
    "a/b/3.jpg",
    "a/b/c/4.jpg",
    "a/é 5#%.jpg",
    "ab/6.jpg",
    "x[1]/7.jpg",
    "z:8.jpg",
]


@pytest.fixture(params=["local", "gs"])
def tree(request: pytest.FixtureRequest) -> str:
    """A folder that holds ``FILES``, with a slash at its end."""
    if request.param == "gs":
        bucket: Bucket = request.getfixturevalue("gcs")
        for name in [*FILES, "other.txt"]:
            bucket.put(f"t/{name}" if name in FILES else name, name.encode())
        bucket.put("t/a/", b"")
        bucket.put("t/a/empty/", b"")
        return bucket.uri("t/")
    folder: Path = request.getfixturevalue("tmp_path")
    for name in FILES:
        (folder / "t" / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / "t" / name).write_bytes(name.encode())
    (folder / "t/a/empty").mkdir()
    (folder / "other.txt").write_bytes(b"")
    return f"{folder}/t/"


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("", FILES),
        ("**", FILES),
        ("*", ["a.jpg", "z:8.jpg"]),
        ("*.jpg", ["a.jpg", "z:8.jpg"]),
        ("?.jpg", ["a.jpg"]),
        ("a.jpg", ["a.jpg"]),
        ("a?jpg", ["a.jpg"]),
        ("a?1.jpg", []),
        ("a[!x]1.jpg", []),
        ("a[+-9]1.jpg", []),
        ("a/", FILES[1:6]),
        ("a/*", ["a/1.jpg", "a/2.png", "a/é 5#%.jpg"]),
        ("a/[13-9].jpg", ["a/1.jpg"]),
        ("a/[!1].*", ["a/2.png"]),
        ("*/*.jpg", ["a/1.jpg", "a/é 5#%.jpg", "ab/6.jpg", "x[1]/7.jpg"]),
        ("*/b/*.jpg", ["a/b/3.jpg"]),
        ("*/b/", ["a/b/3.jpg", "a/b/c/4.jpg"]),
        ("a/b/../1.jpg", []),
        ("a/**", FILES[1:6]),
        ("a**", ["a.jpg", *FILES[1:7]]),
        ("**/*.png", ["a/2.png"]),
        ("**.png", ["a/2.png"]),
        ("a/**/*.jpg", ["a/1.jpg", "a/b/3.jpg", "a/b/c/4.jpg", "a/é 5#%.jpg"]),
        ("**/c/**", ["a/b/c/4.jpg"]),
        ("x[1]/", ["x[1]/7.jpg"]),
        ("x[1]/7.jpg", ["x[1]/7.jpg"]),
        ("x[[]1]/*", ["x[1]/7.jpg"]),
        ("x[1]/*", []),
        ("x[", []),
        ("x[]", []),
        ("missing", []),
        ("missing/", []),
        ("missing/*", []),
        ("a.jpg/", []),
        ("a.jpg/*", []),
        ("a/empty/", []),
        ("a/**mpty", []),
    ],
)
def test_patterns(tree: str, pattern: str, expected: list[str]) -> None:
    if ".." in pattern and not tree.startswith("gs://"):
        expected = ["a/1.jpg"]  # local paths are made absolute; on gs:// dots are a name like others
    found = list(storage.match(tree + pattern))
    assert [file.path.removeprefix(tree) for file in found] == expected
    assert [file.size for file in found] == [len(name.encode()) for name in expected]
    assert all(storage.stat(file.path) == file for file in found)


def test_escape(tree: str) -> None:
    assert [file.path for file in storage.match(storage.escape(f"{tree}x[1]") + "/*")] == [
        f"{tree}x[1]/7.jpg"
    ]


def test_a_range_that_runs_backwards(tree: str) -> None:
    with pytest.raises(ValueError, match="z-a"):
        list(storage.match(tree + "[z-a].jpg"))


def test_the_literal_file_wins(tmp_path: Path, gcs: Bucket) -> None:
    for name in ("[1].jpg", "1.jpg", "*.png", "b.png"):
        (tmp_path / name).write_bytes(b"")
        gcs.put(name, b"")
    for root in (str(tmp_path), gcs.url):
        assert [f.path for f in storage.match(f"{root}/[1].jpg")] == [f"{root}/[1].jpg"]
        assert [f.path for f in storage.match(f"{root}/*.png")] == [f"{root}/*.png"]
        assert [f.path for f in storage.match(f"{root}/[b].png")] == [f"{root}/b.png"]


def test_a_local_folder_means_all_below(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("in[1]/b/2", "in[1]/a", "in1/c"):
        storage.write_bytes(str(tmp_path / name), b"")
    expected = [f"{tmp_path}/in[1]/a", f"{tmp_path}/in[1]/b/2"]
    monkeypatch.chdir(tmp_path)
    for pattern in (f"{tmp_path}/in[1]", (tmp_path / "in[1]").as_uri(), "in[1]", "./in[1]/"):
        assert [file.path for file in storage.match(pattern)] == expected
    (tmp_path / "in[1]/b/2").unlink()
    (tmp_path / "in[1]/a").unlink()
    assert [file.path for file in storage.match("in[1]/")] == [f"{tmp_path}/in1/c"], (
        "an empty folder hides no pattern"
    )


def test_links(tmp_path: Path) -> None:
    (tmp_path / "t/a").mkdir(parents=True)
    (tmp_path / "far").mkdir()
    (tmp_path / "far/1.jpg").write_bytes(b"x")
    (tmp_path / "t/b").symlink_to(tmp_path / "far")
    (tmp_path / "t/c").symlink_to(tmp_path / "far")
    (tmp_path / "t/a/loop").symlink_to(tmp_path / "t")
    (tmp_path / "far/back").symlink_to(".")
    (tmp_path / "t/gone.jpg").symlink_to("nothing")
    (tmp_path / "t/self.jpg").symlink_to("self.jpg")
    os.mkfifo(tmp_path / "t/pipe.jpg")
    found = {file.path.removeprefix(f"{tmp_path}/t/"): file.size for file in storage.match(f"{tmp_path}/t/")}
    # Pipes would block their reader. Links to nowhere are listed: that they fail is better than silence.
    assert found == {"b/1.jpg": 1, "c/1.jpg": 1, "gone.jpg": None, "self.jpg": None}
    assert [file.path for file in storage.match(f"{tmp_path}/t/*.jpg")] == [
        f"{tmp_path}/t/gone.jpg",
        f"{tmp_path}/t/self.jpg",
    ]
    assert [file.path for file in storage.match(f"{tmp_path}/t/*/1.jpg")] == [
        f"{tmp_path}/t/b/1.jpg",
        f"{tmp_path}/t/c/1.jpg",
    ]


@pytest.fixture
def as_nobody() -> Iterator[None]:
    """Root may read everything: be somebody else while the test runs."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(65534)
    yield
    os.seteuid(0)


@pytest.fixture
def locked() -> Iterator[Path]:
    """A tree with a folder that may not be read. Not in ``tmp_path``, which is all closed to others."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o755)
        storage.write_bytes(str(folder / "a.jpg"), b"")
        storage.write_bytes(str(folder / "locked/b.jpg"), b"")
        (folder / "locked").chmod(0)
        yield folder
        (folder / "locked").chmod(0o755)


@pytest.mark.parametrize(
    "read",
    [
        lambda folder: list(storage.match(f"{folder}/")),
        lambda folder: list(storage.match(f"{folder}/locked/*.jpg")),
        lambda folder: list(storage.match(f"{folder}/**.jpg")),
        lambda folder: storage.read_bytes(f"{folder}/locked/b.jpg"),
        lambda folder: storage.exists(f"{folder}/locked/b.jpg"),
    ],
)
def test_a_locked_folder_is_told(locked: Path, as_nobody: None, read: Callable[[Path], object]) -> None:
    with pytest.raises(PermissionError, match="locked"):
        read(locked)


def test_a_locked_folder_that_is_not_asked_for(locked: Path, as_nobody: None) -> None:
    assert [file.path for file in storage.match(f"{locked}/*.jpg")] == [f"{locked}/a.jpg"]


def test_a_local_tree_is_listed_folder_by_folder(tmp_path: Path) -> None:
    for name in ("a/1", "b/2", "c/3"):
        storage.write_bytes(str(tmp_path / name), b"")
    listing = storage.match(f"{tmp_path}/")
    assert next(listing).path.endswith("a/1")
    storage.write_bytes(str(tmp_path / "b/new"), b"")  # not read yet, so it is seen
    assert [Path(file.path).name for file in listing] == ["2", "new", "3"]
