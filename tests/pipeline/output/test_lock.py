"""One run at a time into one output: who waits, who takes over, and what the one that is refused is told."""

import dataclasses
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from datetime import datetime, timedelta, timezone

import pytest

from beamlabel.pipeline.output import lock
from beamlabel.pipeline.output.lock import OutputLockedError, locked
from beamlabel.pipeline.process.cancellation import cancellation
from beamlabel.pipeline.process.process_id import ProcessId
from beamlabel.transforms import storage
from support.jobs import label, photos, uri_list

HOLD = """
import sys, time
from beamlabel.pipeline.output.lock import locked
with locked(sys.argv[1]):
    print("held", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def hold():
    """Starts processes that hold the lock of an output; they are killed in the end."""
    processes = []

    def start(output):
        process = subprocess.Popen([sys.executable, "-c", HOLD, str(output)], stdout=subprocess.PIPE)
        processes.append(process)
        assert process.stdout.readline() == b"held\n"
        return process

    yield start
    for process in processes:
        process.kill()
        process.wait()


def test_the_second_run_is_told_who_holds_the_output(tmp_path, hold, caplog):
    uris = uri_list(tmp_path / "list.txt", photos(tmp_path / "photos", 2))
    holder = hold(tmp_path / "out")
    job = label(tmp_path / "out", "--input", uris)
    assert job.code == 75
    (told,) = [record.message for record in caplog.records if "another run" in record.message]
    started = re.search(rf"host \S+, pid {holder.pid}, started (\S+)", told)[1]
    assert abs(datetime.fromisoformat(started) - datetime.now(timezone.utc)) < timedelta(minutes=5)
    assert not job.output.exists()


def test_publishing_waits_for_its_turn(tmp_path, hold):
    hold(tmp_path / "out")
    command = [sys.executable, "-m", "beamlabel", "publish", str(tmp_path / "out")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 75
    assert "another run is at work" in done.stderr


def test_other_outputs_are_free(tmp_path, hold):
    hold(tmp_path / "out")
    with locked(str(tmp_path / "other")):
        pass


def test_a_killed_holder_frees_a_local_lock_at_once(tmp_path, hold):
    holder = hold(tmp_path / "out")
    holder.kill()
    holder.wait()
    assert [path for path in tmp_path.iterdir() if path.name.startswith("_LOCK")]
    with locked(str(tmp_path / "out")), pytest.raises(OutputLockedError), locked(str(tmp_path / "out")):
        pass
    assert not list(tmp_path.iterdir())


def test_nothing_is_left_of_a_lock_whose_run_made_nothing(tmp_path):
    with locked(str(tmp_path / "new" / "folder" / "out")):
        assert (tmp_path / "new" / "folder").is_dir()
    assert not list(tmp_path.iterdir())


def test_a_folder_whose_parent_cannot_be_written_is_locked_inside(open_folder):
    output = open_folder / "mounted" / "out"
    output.mkdir(parents=True)
    (open_folder / "mounted").chmod(0o555)
    code = (
        "import os, sys; from pathlib import Path; from beamlabel.pipeline.output.lock import locked\n"
        "os.setuid(65534)\n"
        "with locked(sys.argv[1]): print(sorted(p.name for p in Path(sys.argv[1]).iterdir()))\n"
        "print(sorted(p.name for p in Path(sys.argv[1]).iterdir()))"
    )
    output.chmod(0o777)
    if os.getuid() != 0:
        pytest.skip("needs to become another user")
    done = subprocess.run([sys.executable, "-c", code, output], capture_output=True, text=True, check=False)
    assert done.stdout.splitlines() == ["['_LOCK']", "[]"], done.stderr


# --- gs:// ---


def holder(**changes) -> bytes:
    return json.dumps(dataclasses.asdict(dataclasses.replace(ProcessId.own(), **changes))).encode()


def test_gs_the_second_run_is_told(gs, hold):
    process = hold(gs.uri("out"))
    with (
        pytest.raises(
            OutputLockedError, match=rf"on gs://\S+/out: host \S+, pid {process.pid}, started .* ago"
        ),
        locked(gs.uri("out")),
    ):
        pass
    assert gs.list() == ["out/_LOCK"]


def test_gs_one_process_takes_it_once(gs):
    with locked(gs.uri("out")):
        with pytest.raises(OutputLockedError, match=rf"pid {os.getpid()}\b"), locked(gs.uri("out")):
            pass
        assert gs.list() == ["out/_LOCK"]
    assert gs.list() == []


def test_gs_a_lock_whose_first_answer_is_lost_is_taken(gs):
    gs.server.fail_next(1, 503, method="POST", contains="/upload/", done=True)
    with locked(gs.uri("out")), pytest.raises(OutputLockedError), locked(gs.uri("out")):
        pass
    assert gs.list() == []


def test_gs_the_lock_of_the_one_who_took_over_stays(gs):
    with locked(gs.uri("out")):
        gs.put("out/_LOCK", holder(host="elsewhere"))
    assert gs.list() == ["out/_LOCK"]


def test_gs_the_lock_goes_with_the_run(gs):
    with locked(gs.uri("out")):
        assert gs.list() == ["out/_LOCK"]
    assert gs.list() == []


def test_gs_a_dead_process_of_this_machine_frees_it_at_once(gs, hold):
    process = hold(gs.uri("out"))
    process.kill()
    process.wait()
    with locked(gs.uri("out")):
        assert json.loads(gs.get("out/_LOCK"))["pid"] == os.getpid()
    assert gs.list() == []


def test_gs_a_number_that_another_process_has_now_is_a_dead_one(gs):
    gs.put("out/_LOCK", holder(ticks=1))
    with locked(gs.uri("out")):
        pass


@pytest.mark.parametrize("held", [holder(host="elsewhere", system="another boot"), b"", b"[1]"])
def test_gs_another_machine_is_believed_for_five_minutes(gs, monkeypatch, held):
    gs.put("out/_LOCK", held)
    with pytest.raises(OutputLockedError), locked(gs.uri("out")):
        pass
    later = time.time() + lock.STALE_SECONDS + 1
    monkeypatch.setattr(lock.time, "time", lambda: later)
    with locked(gs.uri("out")):
        assert json.loads(gs.get("out/_LOCK"))["pid"] == os.getpid()


def test_gs_a_lock_is_renewed(gs, monkeypatch):
    monkeypatch.setattr(lock, "RENEW_SECONDS", 0.05)
    with locked(gs.uri("out")):
        first = storage.stat(gs.uri("out/_LOCK")).version
        end = time.monotonic() + 20
        while storage.stat(gs.uri("out/_LOCK")).version == first:
            assert time.monotonic() < end
            time.sleep(0.02)
    assert gs.list() == []


def test_gs_a_renewal_whose_answer_is_lost_counts(gs, monkeypatch):
    monkeypatch.setattr(lock, "RENEW_SECONDS", 0.05)
    with locked(gs.uri("out")):
        gs.server.fail_next(1, 503, method="POST", contains="/upload/", done=True)
        looked = threading.Event()
        gs.server.before("/o/out/_LOCK", looked.set)
        assert looked.wait(20), "whose it is now"
    assert gs.list() == []


def test_gs_whoever_loses_the_lock_ends(gs, monkeypatch):
    monkeypatch.setattr(lock, "RENEW_SECONDS", 0.05)
    other = holder(host="elsewhere", pid=7)
    with (
        cancellation() as cancelled,
        pytest.raises(OutputLockedError, match="taken over"),
        locked(gs.uri("out")),
    ):
        gs.put("out/_LOCK", other)
        signal.pause()
        raise AssertionError("not ended")
    assert cancelled.seen is not None
    assert gs.get("out/_LOCK") == other
