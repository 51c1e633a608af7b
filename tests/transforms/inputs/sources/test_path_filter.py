import pickle

import pytest

from beamlabel.transforms.inputs.sources.path_filter import PathFilter

PATHS = [
    "a.jpg", "B.JPG", "c.Jpeg", "d.png", "notes.txt", "cats/e.jpg", "cats/old/f.JPG", "dogs/cats/g.jpg", "cats.jpg",
    "no_ending", "ünï/é.jpg", "x{1}.jpg", "photo.tar.GZ",
]  # fmt: skip


def wanted(include=(), exclude=()):
    files = PathFilter(tuple(include), tuple(exclude))
    return [path for path in PATHS if files.wants(path)]


@pytest.mark.parametrize(
    ("globs", "expected"),
    [
        (["*.jpg"], ["a.jpg", "B.JPG", "cats/e.jpg", "cats/old/f.JPG", "dogs/cats/g.jpg", "cats.jpg", "ünï/é.jpg",
                     "x{1}.jpg"]),
        (["*.{JPEG,png}"], ["c.Jpeg", "d.png"]),
        (["*.jpeg", "*.png"], ["c.Jpeg", "d.png"]),
        (["cats/**"], ["cats/e.jpg", "cats/old/f.JPG"]),
        (["cats/"], ["cats/e.jpg", "cats/old/f.JPG"]),
        (["cats/*"], ["cats/e.jpg"]),
        (["**/cats/*"], ["cats/e.jpg", "dogs/cats/g.jpg"]),
        (["/*.jpg"], ["a.jpg", "B.JPG", "cats.jpg", "x{1}.jpg"]),
        (["/a.jpg"], ["a.jpg"]),
        (["[abd].{jpg,png}"], ["a.jpg", "d.png"]),
        (["é.jpg"], ["ünï/é.jpg"]),
        (["ünï/**"], ["ünï/é.jpg"]),
        (["no_ending"], ["no_ending"]),
        (["?.jpg"], ["a.jpg", "B.JPG", "cats/e.jpg", "cats/old/f.JPG", "dogs/cats/g.jpg", "ünï/é.jpg"]),
        (["x\\{1\\}.jpg"], []),
        (["x[{]1}.jpg"], ["x{1}.jpg"]),
        (["{a,b}.jpg"], ["a.jpg"]),
        (["*.tar.gz"], ["photo.tar.GZ"]),
    ],
)  # fmt: skip
def test_globs(globs, expected):
    assert wanted(include=globs) == expected
    assert wanted(exclude=globs) == [path for path in PATHS if path not in expected]


def test_excluded_files_are_not_included():
    assert wanted(["*.jpg"], ["cats/", "B.*"]) == [
        "a.jpg",
        "dogs/cats/g.jpg",
        "cats.jpg",
        "ünï/é.jpg",
        "x{1}.jpg",
    ]
    assert wanted() == PATHS


@pytest.mark.parametrize("glob", ["", "/", "[b-a].jpg", "{1..100000}.jpg", "{" * 5000])
def test_a_glob_that_is_none_is_named(glob):
    with pytest.raises(ValueError, match=r"matches no file|bad pattern|100000|recursion"):
        PathFilter(exclude=(glob,))


def test_a_filter_travels():
    files = PathFilter(("*.jpg",), ("cats/",))
    assert files.wants("a.jpg")
    assert pickle.loads(pickle.dumps(files)) == files and not pickle.loads(pickle.dumps(files)).wants(
        "cats/a.jpg"
    )
