"""The sample photographs and the statements about their labels."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path

import cv2
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from beamlabel.pipeline.demo.module import DemoUnavailableError
from beamlabel.pipeline.demo.sample import EXPECTED_LABELS, Labeled, main, odd_labels, sample_photos
from support.paths import ROOT

if not all(importlib.util.find_spec(package) for package in ("skimage", "matplotlib", "sklearn")):
    pytest.skip("the extra `demo` is not installed", allow_module_level=True)

LABELS = ROOT / "transforms" / "module" / "imagenet_labels.txt"
STEMS = ["camera", "chelsea", "china", "coffee", "flower", "grace_hopper", "motorcycle_left", "rocket"]
GOOD = [Labeled(stem, sorted(EXPECTED_LABELS[stem])[0], 0.5) for stem in STEMS]


def write_output(directory: Path, rows: list[Labeled]) -> Path:
    """Writes two shards and a file that is not data beside them, like a run."""
    directory.mkdir()
    (directory / "_MANIFEST.json").write_text("{}")
    for number, part in enumerate((rows[::2], rows[1::2])):
        table = pa.table(
            {
                "uri": pa.array([f"/photos/{row.photo}.jpg" for row in part], pa.string()),
                "label": pa.array([row.label for row in part], pa.string()),
                "score": pa.array([row.score for row in part], pa.float32()),
            }
        )
        pq.write_table(table, directory / f"part-{number}.parquet")
    return directory


def test_the_eight_photographs_are_there_and_decode() -> None:
    photos = sample_photos()
    assert [photo.stem for photo in photos] == STEMS
    assert all(photo.is_absolute() for photo in photos)
    for photo in photos:
        height, width = cv2.imread(str(photo)).shape[:2]
        assert min(height, width) >= 300, photo


def test_they_are_found_without_importing_their_packages() -> None:
    code = (
        "import sys, beamlabel.pipeline.demo.sample as s; s.sample_photos();"
        "print({'skimage', 'matplotlib', 'sklearn', 'tensorflow', 'pyarrow'} & sys.modules.keys())"
    )
    assert subprocess.check_output([sys.executable, "-c", code], text=True).strip() == "set()"


@pytest.mark.parametrize("present", [False, True], ids=["no package", "a package without photographs"])
def test_missing_files_are_named(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    present: bool,
) -> None:
    # A search path with only the standard library, or also with a scikit-image without its data.
    if present:
        (tmp_path / "skimage").mkdir()
        (tmp_path / "skimage" / "__init__.py").touch()
    monkeypatch.setattr(sys, "path", [str(tmp_path), *(p for p in sys.path if "-packages" not in p)])
    monkeypatch.delitem(sys.modules, "skimage", raising=False)
    with pytest.raises(DemoUnavailableError, match=r"scikit-image.*pip install '\.\[demo\]'"):
        sample_photos()
    assert main([str(tmp_path / "list.txt")]) == 1
    assert "pip install '.[demo]'" in capsys.readouterr().err
    assert not (tmp_path / "list.txt").exists()


def test_the_list_holds_one_path_a_line(tmp_path: Path) -> None:
    assert main([str(tmp_path / "list.txt")]) == 0
    text = (tmp_path / "list.txt").read_text(encoding="utf-8")
    assert text.endswith("\n")
    assert [Path(line) for line in text.splitlines()] == sample_photos()


def test_show_prints_an_aligned_table(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [Labeled("rocket", "drilling platform", 0.527), Labeled("grace_hopper", "suit", 1.0)]
    assert main(["--show", str(write_output(tmp_path / "out", rows))]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "photo         label              score",
        "grace_hopper  suit               1.00",
        "rocket        drilling platform  0.53",
    ]


def test_show_of_an_empty_output_is_a_heading(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--show", str(write_output(tmp_path / "out", []))]) == 0
    assert capsys.readouterr().out == "photo  label  score\n"


def test_check_accepts_expected_labels(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--check", str(write_output(tmp_path / "out", GOOD))]) == 0
    assert capsys.readouterr().err == ""


def test_check_names_wrong_and_missing_labels(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [row._replace(label="toaster") if row.photo == "coffee" else row for row in GOOD[:-2]]
    assert main(["--check", str(write_output(tmp_path / "out", rows))]) == 1
    assert sorted(capsys.readouterr().err.splitlines()) == [
        "coffee: toaster, expected espresso",
        "motorcycle_left: no label, expected moped or motor scooter",
        "rocket: no label, expected drilling platform or missile or projectile or space shuttle",
    ]


def test_an_output_that_is_not_there_is_a_message(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for task in ("--show", "--check"):
        assert main([task, str(tmp_path / "absent")]) == 1
        assert str(tmp_path / "absent") in capsys.readouterr().err


def test_expected_labels_are_names_of_classes() -> None:
    names = set(LABELS.read_text(encoding="utf-8").splitlines())
    assert set(EXPECTED_LABELS) == set(STEMS)
    assert set().union(*EXPECTED_LABELS.values()) <= names
    assert odd_labels(GOOD) == []


@pytest.mark.parametrize("arguments", [[], ["list.txt", "--show", "out"]])
def test_wrong_usage(arguments: list[str]) -> None:
    with pytest.raises(SystemExit) as exit_info:
        main(arguments)
    assert exit_info.value.code == 2
