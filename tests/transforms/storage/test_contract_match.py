"""Patterns: the contract of ``storage.match`` and ``escape`` on every storage."""

from __future__ import annotations

import pytest

from beamlabel.transforms import storage
from beamlabel.transforms.storage import gcs
from support.places import Place

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


@pytest.fixture
def tree(place: Place) -> Place:
    """A place whose directory ``t`` holds ``FILES``, and an empty one."""
    for name in FILES:
        place.put(f"t/{name}", name.encode())
    place.put("other.txt", b"")
    place.put("t2/other.txt", b"")
    if place.url.startswith(("gs://", "s3://", "azfs://")):
        # Consoles and storage browsers create empty objects for directories.
        place.put("t/a/", b"")
        place.put("t/a/empty/", b"")
    else:
        (place.directory / "t/a/empty").mkdir()
    return place


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
        ("a/**", FILES[1:6]),
        ("a**", ["a.jpg", *FILES[1:7]]),
        ("**/*.png", ["a/2.png"]),
        ("**.png", ["a/2.png"]),
        ("a/**/*.jpg", ["a/1.jpg", "a/b/3.jpg", "a/b/c/4.jpg", "a/é 5#%.jpg"]),
        ("**/c/**", ["a/b/c/4.jpg"]),
        ("a/é 5#%.jpg", ["a/é 5#%.jpg"]),
        ("a/é*", ["a/é 5#%.jpg"]),
        ("[!0-9a]*", ["z:8.jpg"]),
        ("x[1]/", ["x[1]/7.jpg"]),
        ("x[1]/7.jpg", ["x[1]/7.jpg"]),
        ("x[[]1]/*", ["x[1]/7.jpg"]),
        ("x[1]/*", []),
        ("x[", []),
        ("x[]", []),
        ("missing", []),
        ("missing*", []),
        ("missing/", []),
        ("missing/*", []),
        ("a.jpg/", []),
        ("a.jpg/*", []),
        ("a/empty/", []),
        ("a/**mpty", []),
    ],
)
def test_patterns(tree: Place, pattern: str, expected: list[str]) -> None:
    found = list(storage.match(tree.uri("t/") + pattern))
    assert [file.path for file in found] == [tree.shown(f"t/{name}") for name in expected]
    assert [file.size for file in found] == [len(name.encode()) for name in expected]
    assert all(storage.stat(file.path) == file for file in found)


def test_the_place_itself(tree: Place) -> None:
    names = ["other.txt", *(f"t/{name}" for name in FILES), "t2/other.txt"]
    assert [file.path for file in storage.match(tree.url + "/")] == [tree.shown(name) for name in names]


def test_an_escaped_pattern_matches_its_name(tree: Place) -> None:
    for name in ("t/x1/7.jpg", "t/x[1]/*.jpg"):
        tree.put(name, b"")
    assert [file.path for file in storage.match(storage.escape(tree.uri("t/x[1]")) + "/*")] == [
        tree.shown("t/x[1]/*.jpg"),
        tree.shown("t/x[1]/7.jpg"),
    ]
    assert [file.path for file in storage.match(storage.escape(tree.uri("t/x[1]/*.jpg")))] == [
        tree.shown("t/x[1]/*.jpg")
    ]


def test_the_literal_file_wins(place: Place) -> None:
    for name in ("[1].jpg", "1.jpg", "*.png", "b.png"):
        place.put(name, b"")
    for pattern, name in (("[1].jpg", "[1].jpg"), ("*.png", "*.png"), ("[b].png", "b.png")):
        assert [f.path for f in storage.match(f"{place.url}/{pattern}")] == [place.shown(name)]


def test_a_directory_of_the_very_name_wins(place: Place) -> None:
    for name in ("in[1]/b/2", "in[1]/a", "in1/c"):
        place.put(name, b"")
    pattern = f"{place.url}/in[1]/"
    assert [file.path for file in storage.match(pattern)] == [
        place.shown("in[1]/a"),
        place.shown("in[1]/b/2"),
    ]
    storage.delete(place.uri("in[1]/a"))
    storage.delete(place.uri("in[1]/b/2"))
    assert [file.path for file in storage.match(pattern)] == [place.shown("in1/c")], (
        "an empty directory hides no pattern"
    )


def test_a_range_that_runs_backwards(tree: Place) -> None:
    with pytest.raises(ValueError, match="z-a"):
        list(storage.match(tree.uri("t/") + "[z-a].jpg"))


def test_listings_of_many_pages(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gcs, "PAGE_SIZE", 7)
    names = [f"p/{i:03}.jpg" for i in range(30)]
    for name in [*names, "p/deep/a.png", "p/deeper/b.png", "q"]:
        place.put(name, b"x")
    every = [*names, "p/deep/a.png", "p/deeper/b.png"]
    for pattern, expected in (
        ("p/", every),
        ("p/*", names),
        ("p/*0.jpg", names[::10]),
        ("p/*/*", every[-2:]),
    ):
        assert [file.path for file in storage.match(f"{place.url}/{pattern}")] == [
            place.shown(name) for name in expected
        ]
    storage.delete_tree(place.uri("p"))
    assert place.list() == ["q"]
