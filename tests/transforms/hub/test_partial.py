"""Unfinished files of a killed process are deleted by the next one; those of a live process stay."""

import subprocess
import sys

import pytest

from beamlabel.transforms.hub.partial import fill_directory, remove_left_over, write_file

# Reports that it has begun, and waits.
FILLING = (
    "import sys; from pathlib import Path; from beamlabel.transforms.hub.partial import fill_directory\n"
    "def fill(directory):\n"
    "    (directory / 'half').write_bytes(b'x')\n"
    "    print('begun', flush=True); sys.stdin.readline()\n"
    "fill_directory(Path(sys.argv[1]), fill)"
)


@pytest.fixture
def filling(tmp_path):
    """Starts a process that has created half of a directory with this name."""
    processes = []

    def begin(name):
        arguments = [sys.executable, "-c", FILLING, str(tmp_path / name)]
        process = subprocess.Popen(arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        processes.append(process)
        assert process.stdout.readline() == b"begun\n"
        return process

    yield begin
    for process in processes:
        process.kill()
        process.communicate()


def names(directory):
    return sorted(path.name for path in directory.iterdir())


def full(directory):
    (directory / "file").write_bytes(b"whole")


def test_leftovers_of_a_killed_process_are_removed_by_the_next(filling, tmp_path):
    process = filling("module")
    process.kill()
    process.wait()
    assert len(names(tmp_path)) == 1
    fill_directory(tmp_path / "module", full)
    assert names(tmp_path) == ["module"]
    process = filling("other")
    process.kill()
    process.wait()
    remove_left_over(tmp_path)
    assert names(tmp_path) == ["module"]


def test_files_of_a_live_process_are_not_touched(filling, tmp_path):
    process = filling("slow")
    before = names(tmp_path)
    remove_left_over(tmp_path)
    fill_directory(tmp_path / "module", full)
    assert names(tmp_path) == sorted([*before, "module"])
    process.communicate(b"\n")
    assert process.returncode == 0
    assert names(tmp_path) == ["module", "slow"]
    assert names(tmp_path / "slow") == ["half"]


def test_names_of_others_are_not_touched(tmp_path):
    for name in (".git", ".module.old", "x.beamlabel-y", ".beamlabel"):
        (tmp_path / name).mkdir()
    (tmp_path / ".module.beamlabel-link").symlink_to(tmp_path / ".git")
    before = names(tmp_path)
    remove_left_over(tmp_path)
    assert names(tmp_path) == before
    remove_left_over(tmp_path / "absent")


def test_a_half_written_file_goes_too(tmp_path):
    (tmp_path / ".receipt.json.beamlabel-abc").write_bytes(b"{")
    remove_left_over(tmp_path, "other")
    assert names(tmp_path) == [".receipt.json.beamlabel-abc"]
    remove_left_over(tmp_path)
    write_file(tmp_path / "receipt.json", b"{}")
    assert names(tmp_path) == ["receipt.json"]
    assert (tmp_path / "receipt.json").stat().st_mode & 0o777 == 0o644


def test_a_failed_writer_leaves_nothing(tmp_path):
    def fail(directory):
        full(directory)
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        fill_directory(tmp_path / "module", fail)
    assert names(tmp_path) == []
