"""Image names in a truth file find their rows or none, but never a wrong one."""

import unicodedata

import pyarrow as pa
import pytest

from beamlabel.transforms.storage.identity import image_id
from support.truths import BASE, rows, told, truth_of

ROWS = rows(
    "/data/cat/1.jpg",
    "/data/dog/1.jpg",
    "/data/dog/2.jpg",
    "gs://bucket/x/3.jpg",
    "https://host/a%20b/4.jpg?size=2",
    "/data/pets.tar#cat/5.jpg",
    "rel/6.jpg",
)


def one(tmp_path, name, *, column="uri", batch=ROWS, **options):
    """The position of the row that a name finds, or None."""
    (tmp_path / "truth.csv").write_text(f'{column},class\n"{name}",found\n')
    found, truth = truth_of(batch, tmp_path / "truth.csv", **options)
    places = [place for place, classes in enumerate(found) if classes == ("found",)]
    assert len(places) <= 1
    assert truth.unmatched() == 1 - len(places)
    return places[0] if places else None


@pytest.mark.parametrize(
    ("name", "row"),
    [
        ("/data/cat/1.jpg", 0),
        ("file:///data/dog/1.jpg", 1),
        ("/data//dog/./2.jpg", 2),
        ("dog/1.jpg", 1),
        ("./dog/2.jpg", 2),
        ("gs://bucket/x/3.jpg", 3),
        ("x/3.jpg", 3),
        ("3.jpg", 3),
        ("/old/place/3.jpg", 3),
        ("https://HOST:443/a%20b/4.jpg?size=2", 4),
        ("a b/4.jpg", 4),
        ("a%20b/4.jpg", 4),
        ("/data/pets.tar#cat/5.jpg", 5),
        ("pets.tar#cat/5.jpg", 5),
        ("cat/5.jpg", 5),
        ("/data/rel/6.jpg", 6),
        ("rel/6.jpg", 6),
        ("1.jpg", None),
        ("/old/1.jpg", None),
        ("t/1.jpg", None),
        ("bird/1.jpg", None),
        ("/data/cat/7.jpg", None),
        ("", None),
    ],
)
def test_a_name_finds_its_row_and_no_other(tmp_path, name, row):
    if not name:
        return
    assert one(tmp_path, name) == row


NFC, NFD = (unicodedata.normalize(form, "é/ü 1.jpg") for form in ("NFC", "NFD"))


@pytest.mark.parametrize(
    ("row", "name"),
    [
        (f"/data/{NFD}", f"/data/{NFC}"),
        (f"/data/{NFC}", f"/data/{NFD}"),
        (f"/data/{NFC}", NFD.replace("/", "\\")),
        (f"gs://b/{NFD}", f"gs://b/{NFC}"),
        (f"/data/x/{NFD}", f"x/{NFC}"),
        ("/data/cat/1.jpg", "cat\\1.jpg"),
        ("/data/cat/1.jpg", "C:\\photos\\1.jpg"),
        ("/data/cat/1.jpg", "../../data/cat/1.jpg"),
        ("/data/cat/1.jpg", "/data/cat/1.jpg "),
        ("/data/cat/1.jpg", " cat/1.jpg"),
        ("/data/cat\\1.jpg", "/data/cat\\1.jpg"),
    ],
)
def test_a_name_that_is_written_in_another_way_finds_its_row(tmp_path, row, name):
    others = ["/data/dog/2.jpg"] if name.startswith("C:") else ["/data/dog/1.jpg", "/other/ü 1.jpg"]
    assert one(tmp_path, name, batch=rows(*others, row)) == len(others)


def test_a_plain_name_of_two_rows_is_of_none(tmp_path):
    batch = rows(f"/data/{NFC}", f"/data/{NFD}")
    assert one(tmp_path, f" /data/{NFC}", batch=batch) is None
    assert one(tmp_path, f"/data/{NFC}", batch=batch) == 0


@pytest.mark.parametrize("column", ["file", "filename", "File_Name", "FILE"])
def test_a_file_name_is_of_any_directory(tmp_path, column):
    batch = rows("/data/1.jpg", "/data/sub/1.jpg", "/data/sub/2.jpg")
    assert one(tmp_path, "1.jpg", column=column, batch=batch) is None
    assert one(tmp_path, "2.jpg", column=column, batch=batch) == 2
    assert one(tmp_path, "1.jpg", column="path", batch=batch) == 0


def test_names_relative_to_the_directory_of_the_file(tmp_path):
    batch = rows(f"{tmp_path}/photos/1.jpg", "/elsewhere/photos/1.jpg")
    assert one(tmp_path, "photos/1.jpg", batch=batch) == 0


def test_two_rows_of_an_image_both_have_its_truth(tmp_path):
    batch = rows("/data/a.jpg", "/data/b.jpg", "/data//a.jpg")
    (tmp_path / "t.csv").write_text("file,class\na.jpg,x\n")
    assert truth_of(batch, tmp_path / "t.csv")[0] == [("x",), None, ("x",)]


def test_a_relative_name_of_two_images_is_of_none(tmp_path):
    """For example, from two runs, each in its own directory."""
    a, b = rows("a.jpg", base="/one"), rows("a.jpg", base="/two")
    batch = pa.Table.from_batches([a, b]).combine_chunks().to_batches()[0]
    assert one(tmp_path, "a.jpg", batch=batch) is None


def test_file_names_have_to_be_unique_in_the_truth_too(tmp_path):
    (tmp_path / "t.csv").write_text("uri,class\n/x/3.jpg,one\n/y/3.jpg,one\n")
    found, truth = truth_of(ROWS, tmp_path / "t.csv")
    assert not any(found)
    assert told(truth, "several") == 2
    (tmp_path / "t.csv").write_text("uri,class\ngs://bucket/x/3.jpg,one\n/y/3.jpg,two\n")
    found, _ = truth_of(ROWS, tmp_path / "t.csv")
    assert found[3] == ("one",)


def test_matches_by_file_name_alone_are_reported(tmp_path):
    (tmp_path / "t.csv").write_text("uri,class\n/old/3.jpg,one\n2.jpg,two\n/data/cat/1.jpg,three\n")
    found, truth = truth_of(ROWS, tmp_path / "t.csv")
    assert [found[place] for place in (0, 2, 3)] == [("three",), ("two",), ("one",)]
    assert told(truth, "file name alone") == 1


def test_without_all_rows_no_file_name_is_matched(tmp_path):
    assert one(tmp_path, "3.jpg", scan=False) is None
    assert one(tmp_path, "/data//cat/1.jpg", scan=False) == 0
    assert one(tmp_path, "cat/1.jpg", scan=False) == 0


def test_two_spellings_of_an_image_with_two_classes_are_no_truth(tmp_path):
    (tmp_path / "t.csv").write_text("uri,class\n/data/cat/1.jpg,one\n/data//cat/1.jpg,two\n")
    found, truth = truth_of(ROWS, tmp_path / "t.csv")
    assert not any(found)
    assert told(truth, "rows with two different truths") == 1


def test_lines_that_are_wrong_are_counted(tmp_path):
    (tmp_path / "t.csv").write_text(
        "uri,class\n/data/cat/1.jpg,a\n/data/cat/1.jpg,a\n/data/dog/1.jpg,b\n/data/dog/1.jpg,c\n,d\n"
        "/data/dog/2.jpg,\nnowhere.jpg,e\n/also/not.jpg,e\n"
    )
    found, truth = truth_of(ROWS, tmp_path / "t.csv")
    assert found[:3] == [("a",), None, None]
    problems = {problem.what.partition(str(tmp_path))[0].strip(): problem for problem in truth.problems()}
    assert problems["images with two different truths in"].count == 1
    assert problems["images in"].count == 2
    assert problems["images in"].examples == ("nowhere.jpg", "/also/not.jpg")
    assert told(truth, "repeat") == 1
    assert told(truth, "without a class") == 1
    assert told(truth, "without an image") == 1
    assert truth.unmatched() == 2


@pytest.mark.parametrize("key", ["ref_id", "image_id"])
def test_keys_of_ours(tmp_path, key):
    batch = rows("/data/a.jpg", "/data/a.jpg", "/data/b.jpg")
    value = {"ref_id": "/in.txt#1", "image_id": image_id("/data/b.jpg").upper()}[key]
    (tmp_path / "t.csv").write_text(f"uri,{key},class\n/data/a.jpg,{value},x\n")
    found, truth = truth_of(batch, tmp_path / "t.csv")
    assert found == [None, *([("x",), None] if key == "ref_id" else [None, ("x",)])]
    assert truth.columns == (key,)
    assert truth.by == key


def test_a_column_of_another_name(tmp_path):
    assert one(tmp_path, "cat/1.jpg", column="picture", truth_key="picture") == 0


def test_rows_of_the_first_version_have_no_image_id(tmp_path):
    batch = ROWS.select(["uri", "ref_id"])
    assert one(tmp_path, "/data/cat/1.jpg", batch=batch) == 0
    assert one(tmp_path, "cat/1.jpg", batch=batch) == 0
    assert one(tmp_path, "1.jpg", batch=batch) is None


def test_later_truths_win(tmp_path):
    (tmp_path / "a.csv").write_text("uri,class\n/data/cat/1.jpg,a\n/data/dog/1.jpg,a\n/data/dog/2.jpg,a\n")
    (tmp_path / "b.csv").write_text("uri,class\n/data/dog/1.jpg,b\n/data/dog/2.jpg,b\n/data/dog/2.jpg,c\n")
    assert truth_of(ROWS, tmp_path / "a.csv", tmp_path / "b.csv")[0][:3] == [("a",), ("b",), None]
    assert truth_of(ROWS, tmp_path / "b.csv", tmp_path / "a.csv")[0][:3] == [("a",), ("a",), ("a",)]
    found, truth = truth_of(ROWS, "parent", tmp_path / "b.csv", listed=BASE)
    assert found[:3] == [("cat",), ("b",), None]
    assert truth.by == "several"


def test_classes_that_are_spelled_alike(tmp_path):
    (tmp_path / "t.csv").write_text(
        "uri,class\n/data/cat/1.jpg,Tabby cat\n/data/dog/1.jpg,tabby  cat\n/data/dog/2.jpg,dog\n3.jpg,tabby_cat\n"
    )
    _, truth = truth_of(ROWS, tmp_path / "t.csv")
    assert told(truth, "case or spaces") == 1
