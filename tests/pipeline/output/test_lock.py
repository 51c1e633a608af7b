"""One run per output at a time: waiting, takeover, and the message of a refusal."""

import os
import re
import subprocess
import sys
from datetime import datetime, timedelta, timezone

import pytest

from beamlabel.pipeline.output.lock import OutputLockedError, locked
from support.jobs import command, label, photos, uri_list


def test_the_second_run_gets_the_name_of_the_holder(tmp_path, hold, caplog):
    uris = uri_list(tmp_path / "list.txt", photos(tmp_path / "photos", 2))
    holder = hold(tmp_path / "out")
    job = label(tmp_path / "out", "--input", uris)
    assert job.code == 75
    (told,) = [record.message for record in caplog.records if "another run" in record.message]
    started = re.search(rf"host \S+, pid {holder.pid}, started ([^\s)]+)", told)[1]
    assert abs(datetime.fromisoformat(started) - datetime.now(timezone.utc)) < timedelta(minutes=5)
    assert not job.output.exists()


def test_publishing_waits_for_its_turn(tmp_path, hold):
    hold(tmp_path / "out")
    done = command("publish", tmp_path / "out")
    assert done.returncode == 75
    assert "is locked by another run" in done.stderr


def test_other_outputs_are_free(tmp_path, hold):
    hold(tmp_path / "out")
    with locked(str(tmp_path / "other")):
        pass


def test_a_killed_holder_frees_a_local_lock_at_once(tmp_path, hold):
    holder = hold(tmp_path / "out")
    holder.kill()
    holder.wait()
    assert [path for path in tmp_path.iterdir() if path.name.startswith("_beamlabel-")]
    with locked(str(tmp_path / "out")), pytest.raises(OutputLockedError), locked(str(tmp_path / "out")):
        pass
    assert not list(tmp_path.iterdir())


def test_nothing_is_left_of_a_lock_whose_run_made_nothing(tmp_path):
    with locked(str(tmp_path / "new" / "directory" / "out")):
        assert (tmp_path / "new" / "directory").is_dir()
    assert not list(tmp_path.iterdir())


def test_a_directory_whose_parent_cannot_be_written_is_locked_inside(tmp_path):
    output = tmp_path / "mounted" / "out"
    output.mkdir(parents=True)
    (tmp_path / "mounted").chmod(0o555)
    code = (
        "import os, sys; from pathlib import Path; from beamlabel.pipeline.output.lock import locked\n"
        "os.setuid(65534)\n"
        "with locked(sys.argv[1]): print(sorted(p.name for p in Path(sys.argv[1]).iterdir()))\n"
        "print(sorted(p.name for p in Path(sys.argv[1]).iterdir()))"
    )
    output.chmod(0o777)
    for directory in (tmp_path, *tmp_path.parents[:-2]):
        directory.chmod(0o755)
    if os.getuid() != 0:
        pytest.skip("needs to become another user")
    done = subprocess.run([sys.executable, "-c", code, output], capture_output=True, text=True, check=False)
    assert done.stdout.splitlines() == ["['_beamlabel']", "[]"], done.stderr


def test_many_processes_at_once_hold_a_local_lock_one_after_the_other(tmp_path):
    code = (
        "import sys, time\n"
        "from beamlabel.pipeline.output.lock import OutputLockedError, locked\n"
        "held = 0\n"
        "while held < 20:\n"
        "    try:\n"
        "        with locked(sys.argv[1]):\n"
        "            open(sys.argv[2], 'x').close()\n"
        "            held += 1\n"
        "            __import__('os').unlink(sys.argv[2])\n"
        "    except OutputLockedError:\n"
        "        time.sleep(0.001)\n"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "out"), str(tmp_path / "held")]
    processes = [subprocess.Popen(command) for _ in range(3)]
    assert [process.wait() for process in processes] == [0, 0, 0]
    assert not list(tmp_path.iterdir())
