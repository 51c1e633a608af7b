"""Locks of tensorflow-hub that killed processes have left."""

import os
import socket
import subprocess
import sys

import pytest

from beamlabel.transforms.hub.locks import remove_dead_locks


@pytest.fixture
def dead() -> int:
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


def locked(root, content):
    (root / "abc.lock").write_text(content)
    (root / "abc.f00.tmp").mkdir()
    (root / "abc").mkdir()
    remove_dead_locks(root)
    return sorted(path.name for path in root.iterdir())


def test_what_a_killed_process_left_is_removed(tmp_path, dead):
    assert locked(tmp_path, f"{socket.gethostname()}.{dead}.f00") == ["abc"]


def test_what_had_the_number_of_this_process_is_removed(tmp_path):
    assert locked(tmp_path, f"{socket.gethostname()}.{os.getpid()}.f00") == ["abc"]


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
