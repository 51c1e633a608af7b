"""Truths other than a file of names: the images' directories, an output column, corrections of a report."""

import pyarrow as pa
import pytest

from beamlabel.pipeline.errors import UsageError
from beamlabel.pipeline.truth.image_names import parent_of
from beamlabel.transforms.storage.identity import image_id
from support.truths import rows, told, truth_of


@pytest.mark.parametrize(
    ("uri", "parent"),
    [
        ("/data/cat/1.jpg", "cat"),
        ("/data/a b#c?d%20e/1.jpg", "a b#c?d%20e"),
        ("cat/1.jpg", "cat"),
        ("1.jpg", None),
        ("./1.jpg", None),
        ("/1.jpg", None),
        ("file:///data/a%20b/1.jpg", "a b"),
        ("gs://bucket/cat/1.jpg", "cat"),
        ("gs://bucket/a%20b/1.jpg", "a%20b"),
        ("gs://bucket/1.jpg", None),
        ("s3://bucket/cat//1.jpg", "cat"),
        ("https://host/cat/1.jpg?x=/dog/2.jpg", "cat"),
        ("https://host/a%2Fb/1.jpg", "a/b"),
        ("https://host/%C3%A4/1.jpg#top/x", "ä"),
        ("https://host/1.jpg", None),
        ("https://host", None),
        ("/data/pets.tar#cat/1.jpg", "cat"),
        ("/data/pets.TAR.GZ#1.jpg", None),
        ("gs://bucket/pets.zip#a/b/1.jpg", "b"),
        ("https://host/pets.zip#cat/1.jpg", "cat"),
        ("/data/cat/pets.zip", "cat"),
        ("/data/files.parquet#12", "data"),
    ],
)
def test_the_directory_of_an_image(uri, parent):
    assert parent_of(uri) == parent


def test_a_ref_id_tells_members_of_archives():
    assert parent_of("/data/odd#cat/1.jpg", "/data/odd#3") == "cat"
    assert parent_of("/data/odd#1.jpg", "/data/odd#3") is None
    assert parent_of("/data/files.parquet#12", "/data/files.parquet#12") is None
    assert parent_of("/data/a#b/1.jpg", "/data/list.txt#3") == "a#b"


def test_images_at_the_top_of_what_was_listed_have_no_class():
    batch = rows("/data/cat/1.jpg", "/data/2.jpg", "/data/dog/3.jpg")
    found, truth = truth_of(batch, "parent", listed="/data")
    assert found == [("cat",), None, ("dog",)]
    assert told(truth, "class directory") == 1
    assert truth.unmatched() is None
    assert truth_of(batch, "parent", listed="/data/**/*.jpg")[0] == found
    assert truth_of(batch, "parent")[0] == [("cat",), ("data",), ("dog",)]


@pytest.mark.parametrize(
    ("values", "found"),
    [
        (pa.array(["a", None, "", "b"]), [("a",), None, None, ("b",)]),
        (pa.array([1, None, 0, 2], pa.int8()), [("1",), None, ("0",), ("2",)]),
        (pa.array(["a", None, "a", "b"]).dictionary_encode(), [("a",), None, ("a",), ("b",)]),
        (pa.array([["b", "a"], None, [], ["a", "a", None]]), [("a", "b"), None, None, ("a",)]),
        (pa.array([[2], [1, 3], [], None], pa.list_(pa.int64())), [("2",), ("1", "3"), None, None]),
    ],
)
def test_a_column(values, found):
    batch = rows("/1", "/2", "/3", "/4", mine=values)
    classes, truth = truth_of(batch, "mine")
    assert classes == found
    assert truth.multi_label == pa.types.is_list(values.type)
    assert told(truth, "empty") == found.count(None)


def test_a_column_with_a_separator():
    batch = rows("/1", "/2", mine=["b; a;", '["x", "y"]'])
    classes, truth = truth_of(batch, "mine", multi_label=";")
    assert classes == [("a", "b"), ("x", "y")]
    assert truth.multi_label


def test_columns_that_are_no_truth():
    batch = rows("/1", price=[1.5], label=["a"], parent=["b"], several=['["x", "y"]'])
    for name in ("price", "uri", "label", "parent", "several", "nothing"):
        with pytest.raises(UsageError, match=name):
            truth_of(batch, name)
    with pytest.raises(UsageError, match="truth_column"):
        truth_of(batch.drop_columns("parent"), "parent", truth_column="x")


def test_corrections_of_a_report(tmp_path):
    batch = rows(*(f"/data/{name}.jpg" for name in "abcde"), species=["cat", "cat", "cat", "cat", None])
    ids = batch.column("image_id").to_pylist()
    lines = [
        f'{ids[0]},/data/a.jpg,right,"cat, the"',
        f"{ids[1]},/data/b.jpg,wrong,dog",
        f"{ids[2]},/data/c.jpg,wrong,",
        f"{image_id('/data/gone.jpg')},/data/gone.jpg,wrong,dog",
    ]
    path = tmp_path / "corrections.csv"
    path.write_bytes("\r\n".join(["\ufeffimage_id,uri,verdict,label", *lines, ""]).encode())
    found, truth = truth_of(batch, "species", path)
    assert found == [("cat, the",), ("dog",), None, ("cat",), None], (
        "a wrong image has no earlier truth either"
    )
    assert told(truth, "say wrong") == 1
    assert told(truth, "without a row") == 1
    assert not truth.multi_label


@pytest.mark.parametrize("line", ["00,a,perhaps,cat", "00,a,right,"])
def test_corrections_that_say_nothing(tmp_path, line):
    path = tmp_path / "corrections.csv"
    path.write_text(f"image_id,uri,verdict,label\n{line}\n")
    with pytest.raises(UsageError, match="line 2"):
        truth_of(rows("/a"), path)
