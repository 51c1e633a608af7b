"""Locks of tensorflow-hub left behind by killed processes."""

import os
import socket
import subprocess
import sys
import time

import pytest

from beamlabel.transforms.hub.locks import remove_dead_locks


@pytest.fixture
def dead() -> int:
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


def locked(root, content, age=0.0):
    (root / "abc.lock").write_text(content)
    made = (root / "abc.lock").stat().st_mtime - age
    os.utime(root / "abc.lock", (made, made))
    (root / "abc.f00.tmp").mkdir()
    (root / "abc").mkdir()
    remove_dead_locks(root)
    return sorted(path.name for path in root.iterdir())


def test_leftovers_of_a_killed_process_are_removed(tmp_path, dead):
    assert locked(tmp_path, f"{socket.gethostname()}.{dead}.f00") == ["abc"]


def test_leftovers_of_an_earlier_process_with_this_pid_are_removed(tmp_path):
    assert locked(tmp_path, f"{socket.gethostname()}.{os.getpid()}.f00", age=1e6) == ["abc"]


def test_files_that_another_thread_fetches_stay(tmp_path):
    assert len(locked(tmp_path, f"{socket.gethostname()}.{os.getpid()}.f00")) == 3


def test_abandoned_files_are_removed(tmp_path):
    name, word = "a" * 40, "b" * 32
    half = [f"{name}.lock.tmp{word}", f"{name}.descriptor.txt.tmp{word}", f"{name}.{word}.tmp"]
    others = [name, f"{name}.descriptor.txt", f"{name}.tmp", "beamlabel-x.json", f"x.{word}.tmp"]
    day = 86400
    for age, left in ((0.5 * day, sorted([*half, *others])), (2 * day, sorted(others))):
        for path in (tmp_path / one for one in (*half, *others)):
            if path.name == half[2]:
                (path / "variables").mkdir(parents=True, exist_ok=True)
                (path / "variables" / "x").write_text("x")
            else:
                path.write_text("x")
            for one in (*path.rglob("*"), path):
                os.utime(one, (time.time() - age,) * 2)
        remove_dead_locks(tmp_path)
        assert sorted(path.name for path in tmp_path.iterdir()) == left


@pytest.mark.parametrize(
    "content", ["elsewhere.1.f00", f"{socket.gethostname()}.{os.getppid()}.f00", "", "\xff"]
)
def test_other_locks_stay(tmp_path, content):
    assert locked(tmp_path, content) == ["abc", "abc.f00.tmp", "abc.lock"]


def test_no_lock_leads_out_of_the_cache(tmp_path, dead):
    victim = tmp_path / "victim.tmp"
    victim.mkdir()
    root = tmp_path / "cache"
    root.mkdir()
    locked(root, f"{socket.gethostname()}.{dead}./../victim")
    assert victim.is_dir()
