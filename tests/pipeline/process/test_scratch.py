"""The temporary files of a run are deleted by it, or by the next run if it was killed."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from beamlabel.pipeline.process.scratch import own_scratch

_KILLED = """
import os, signal, tempfile
from beamlabel.pipeline.process.scratch import own_scratch
with own_scratch():
    tempfile.mkdtemp(prefix="beam-pipeline-temp")
    os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.fixture
def parent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(tempfile, "tempdir", None)
    return tmp_path


def test_all_temporary_files_are_in_one_directory_that_is_deleted(parent: Path) -> None:
    with own_scratch() as directory:
        assert directory.parent == parent
        assert Path(tempfile.mkdtemp(prefix="beam-pipeline-temp")).parent == directory
    assert not [*parent.iterdir()]
    assert tempfile.gettempdir() == str(parent)


def test_what_a_killed_run_left_is_deleted_by_the_next(parent: Path) -> None:
    subprocess.run([sys.executable, "-c", _KILLED], check=False)
    left = [*parent.iterdir()]
    assert len(left) == 1 and [*left[0].iterdir()]
    with own_scratch() as directory:
        assert [*parent.iterdir()] == [directory]


def test_directories_of_others_stay(parent: Path) -> None:
    with own_scratch() as live:
        system = live.name.split("-")[2]
        names = [
            "beamlabel-run-000000000000-1-1-aaaaaaaa",  # of another machine
            f"beamlabel-run-{system}-1-0-aaaaaaaa",  # of a process whose start is unknown
            f"beamlabel-run-{system}-1-1-aaaaaaaa.mine",
            f"beamlabel-run-{system}-1-1-linked__",
            "beam-pipeline-tempabcdefgh",
        ]
        target = parent / "target"
        target.mkdir()
        (target / "precious.txt").touch()
        for name in names:
            (parent / name).symlink_to(target) if "linked" in name else (parent / name).mkdir()
        with own_scratch():
            assert {*names, live.name} <= {path.name for path in live.iterdir()} | {
                path.name for path in parent.iterdir()
            }
        tempfile.tempdir = str(parent)
        with own_scratch():
            assert {*names, live.name} <= {path.name for path in parent.iterdir()}
        assert (target / "precious.txt").exists()
