"""Empty lists, and lists that are shorter than expected."""

import logging

import pytest

from beamlabel.pipeline.errors import UsageError
from beamlabel.pipeline.options.parser import parse
from support.jobs import label, photos


def test_an_empty_list_is_reported_in_capitals(tmp_path, caplog):
    (tmp_path / "list.txt").write_text("# nothing today\n\n")
    with caplog.at_level(logging.INFO, "beamlabel"):
        job = label(tmp_path / "out", "--input", tmp_path / "list.txt")
    assert job.code == 0
    assert job.succeeded
    assert "THE INPUT IS EMPTY" in caplog.text


@pytest.mark.parametrize("lines", [0, 2])
def test_a_list_that_is_too_short_is_an_error_and_nothing_is_published(tmp_path, lines, capfd):
    paths = photos(tmp_path / "photos", 3)
    (tmp_path / "list.txt").write_text("\n".join(map(str, paths)))
    earlier = label(tmp_path / "out", "--input", tmp_path / "list.txt", "--min_input", 3)
    assert earlier.code == 0 and earlier.manifest["rows"]["input"] == 3
    (tmp_path / "list.txt").write_text("\n".join(map(str, paths[:lines])))
    before = {path: path.read_bytes() for path in (tmp_path / "out").rglob("*") if path.is_file()}
    job = label(
        tmp_path / "out", "--input", tmp_path / "list.txt", "--min_input", 3, "--if_exists", "overwrite"
    )
    assert job.code == 2
    assert "--min_input 3" in capfd.readouterr().err
    assert {path: path.read_bytes() for path in (tmp_path / "out").rglob("*") if path.is_file()} == before
    fresh = label(tmp_path / "other", "--input", tmp_path / "list.txt", "--min_input", 3)
    assert fresh.code == 2
    assert not [
        path for path in tmp_path.rglob("*") if "other" in path.name and path.is_dir() and any(path.iterdir())
    ]


def test_more_than_the_limit_leaves():
    arguments = ["--input", "a", "--module", "m", "--output", "o", "--limit", "3", "--min_input", "4"]
    with pytest.raises(UsageError):
        parse(arguments)
