"""Class names: the project's own lists, and files."""

import pytest

from beamlabel.transforms.module.class_names import load_class_names


def test_imagenet_names_by_the_number_of_classes():
    names = load_class_names(None, 1000)
    with_background = load_class_names(None, 1001)
    assert (names[0], names[281], names[999]) == ("tench", "tabby", "toilet tissue")
    assert with_background == ("background", *names)
    assert len(names) == 1000
    assert all(name == name.strip() and name for name in names)


@pytest.mark.parametrize("classes", [None, 1, 11, 999, 1002])
def test_other_numbers_have_no_names(classes):
    assert load_class_names(None, classes) is None


@pytest.mark.parametrize("classes", [None, 3, 1001])
def test_none_switches_names_off(classes):
    assert load_class_names("none", classes) is None


@pytest.mark.parametrize(
    "content", ["cat\ndog\nŽebra, große\n", "cat\ndog\nŽebra, große", "cat\r\ndog\r\nŽebra, große\r\n\r\n"]
)
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
def test_a_file(tmp_path, content, encoding):
    path = tmp_path / "labels.txt"
    path.write_bytes(content.encode(encoding))
    assert load_class_names(str(path), 3) == ("cat", "dog", "Žebra, große")


def test_a_file_overrides_the_imagenet_names(tmp_path):
    path = tmp_path / "labels.txt"
    path.write_text("".join(f"class {number}\n" for number in range(1000)))
    assert load_class_names(str(path), 1000)[7] == "class 7"


def test_a_file_on_gs(gcs):
    assert load_class_names(gcs.put("labels.txt", b"cat\ndog\n"), 2) == ("cat", "dog")


@pytest.mark.parametrize(
    ("content", "classes", "message"),
    [
        (b"cat\ndog\n", 5, "2 names for 5 classes$"),
        (b"cat\ndog\n", 3, "2 names for 3 classes; does the model's class 0 mean 'background'"),
        (b"background\ncat\ndog\n", 2, "3 names for 2 classes; is the first line 'background'"),
        (b"cat\n\ndog\n", 3, "line 2 is empty"),
        (b"\ncat\ndog\n", 3, "line 1 is empty"),
        (b"", 3, "the file is empty"),
        (b"cat\n\xff\xfe\n", 2, "not UTF-8 at byte 4"),
        (b"cat\ndog\n", None, "the module has no logits"),
    ],
)
def test_names_that_do_not_fit_are_refused(tmp_path, content, classes, message):
    path = tmp_path / "labels.txt"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=message) as caught:
        load_class_names(str(path), classes)
    assert str(path) in str(caught.value)
