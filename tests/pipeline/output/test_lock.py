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
from pathlib import Path

import pytest

from beamlabel.pipeline import layout
from beamlabel.pipeline.errors import UsageError
from beamlabel.pipeline.output import lease, staging
from beamlabel.pipeline.output.holder import describe
from beamlabel.pipeline.output.lock import OutputLockedError, locked
from beamlabel.pipeline.process.cancellation import cancellation
from beamlabel.pipeline.process.process_id import ProcessId
from beamlabel.transforms import storage
from support.jobs import label, photos, uri_list
from support.threads import no_more_threads

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
    assert [path for path in tmp_path.iterdir() if path.name.startswith("_beamlabel-")]
    with locked(str(tmp_path / "out")), pytest.raises(OutputLockedError), locked(str(tmp_path / "out")):
        pass
    assert not list(tmp_path.iterdir())


def test_nothing_is_left_of_a_lock_whose_run_made_nothing(tmp_path):
    with locked(str(tmp_path / "new" / "folder" / "out")):
        assert (tmp_path / "new" / "folder").is_dir()
    assert not list(tmp_path.iterdir())


def test_a_folder_whose_parent_cannot_be_written_is_locked_inside(tmp_path):
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
    for folder in (tmp_path, *tmp_path.parents[:-2]):
        folder.chmod(0o755)
    if os.getuid() != 0:
        pytest.skip("needs to become another user")
    done = subprocess.run([sys.executable, "-c", code, output], capture_output=True, text=True, check=False)
    assert done.stdout.splitlines() == ["['_beamlabel']", "[]"], done.stderr


# --- gs:// ---


def holder(**changes) -> bytes:
    return describe(dataclasses.replace(ProcessId.own(), **changes))


def test_gs_the_second_run_is_told(gs, hold):
    process = hold(gs.uri("out"))
    with (
        pytest.raises(
            OutputLockedError, match=rf"on gs://\S+/out: host \S+, pid {process.pid}, started .* ago"
        ),
        locked(gs.uri("out")),
    ):
        pass
    assert gs.list() == ["out/_beamlabel/lock"]


def test_gs_one_process_takes_it_once(gs):
    with locked(gs.uri("out")):
        with pytest.raises(OutputLockedError, match=rf"pid {os.getpid()}\b"), locked(gs.uri("out")):
            pass
        assert gs.list() == ["out/_beamlabel/lock"]
    assert gs.list() == []


def test_gs_a_lock_whose_first_answer_is_lost_is_taken(gs):
    gs.server.fail_next(1, 503, method="POST", contains="/upload/", done=True)
    with locked(gs.uri("out")), pytest.raises(OutputLockedError), locked(gs.uri("out")):
        pass
    assert gs.list() == []


def test_gs_the_lock_of_the_one_who_took_over_stays(gs):
    with locked(gs.uri("out")):
        gs.put("out/_beamlabel/lock", holder(host="elsewhere"))
    assert gs.list() == ["out/_beamlabel/lock"]


def test_gs_the_lock_goes_with_the_run(gs):
    with locked(gs.uri("out")):
        assert gs.list() == ["out/_beamlabel/lock"]
    assert gs.list() == []


def test_gs_a_dead_process_of_this_machine_frees_it_at_once(gs, hold):
    process = hold(gs.uri("out"))
    process.kill()
    process.wait()
    with locked(gs.uri("out")):
        assert json.loads(gs.get("out/_beamlabel/lock"))["pid"] == os.getpid()
    assert gs.list() == []


def test_gs_a_number_that_another_process_has_now_is_a_dead_one(gs):
    gs.put("out/_beamlabel/lock", holder(ticks=1))
    with locked(gs.uri("out")):
        pass


ELSEWHERE = holder(host="elsewhere", system="another boot")
# As a later version might write it.
NOBODY = json.dumps({"format": layout.LOCK_FORMAT, "who": "not said"}).encode()


@pytest.mark.parametrize("held", [ELSEWHERE, NOBODY])
@pytest.mark.parametrize("skew", [-3600, 0, 3600])
def test_gs_another_machine_is_believed_for_five_minutes_of_the_storages_clock(gcs, monkeypatch, held, skew):
    """Whatever the clock of this machine says; here that of the thread which is not the server's."""
    gcs.put("out/_beamlabel/lock", held)
    real, me = time.time, threading.current_thread()
    monkeypatch.setattr(time, "time", lambda: real() + skew * (threading.current_thread() is me))
    with pytest.raises(OutputLockedError, match=r"renewed \d s ago"), locked(gcs.uri("out")):
        pass
    age(gcs, lease.STALE_SECONDS - 20)
    with pytest.raises(OutputLockedError, match=r"renewed 2[789]\d s ago"), locked(gcs.uri("out")):
        pass
    age(gcs, lease.STALE_SECONDS + 5)
    with locked(gcs.uri("out")):
        assert json.loads(gcs.get("out/_beamlabel/lock"))["pid"] == os.getpid()


def age(gcs, seconds):
    """Has the storage say that the lock was written so long ago."""
    written = datetime.now(timezone.utc) - timedelta(seconds=seconds)
    stored = gcs.server._emulator._storage.objects[gcs.bucket]["out/_beamlabel/lock"]
    stored["updated"] = stored["timeCreated"] = written.strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def test_gs_a_lock_is_renewed(gs, monkeypatch):
    monkeypatch.setattr(lease, "RENEW_SECONDS", 0.05)
    with locked(gs.uri("out")):
        first = storage.stat(gs.uri("out/_beamlabel/lock")).version
        end = time.monotonic() + 20
        while storage.stat(gs.uri("out/_beamlabel/lock")).version == first:
            assert time.monotonic() < end
            time.sleep(0.02)
    assert gs.list() == []


def test_gs_a_renewal_whose_answer_is_lost_counts(gs, monkeypatch):
    monkeypatch.setattr(lease, "RENEW_SECONDS", 0.05)
    with locked(gs.uri("out")):
        gs.server.fail_next(1, 503, method="POST", contains="/upload/", done=True)
        looked = threading.Event()
        gs.server.before("/o/out/_beamlabel/lock", looked.set)
        assert looked.wait(20), "whose it is now"
    assert gs.list() == []


def test_gs_whoever_loses_the_lock_ends(gs, monkeypatch):
    monkeypatch.setattr(lease, "RENEW_SECONDS", 0.05)
    other = holder(host="elsewhere", pid=7)
    with (
        cancellation() as cancelled,
        pytest.raises(OutputLockedError, match="taken over"),
        locked(gs.uri("out")),
    ):
        gs.put("out/_beamlabel/lock", other)
        signal.pause()
        raise AssertionError("not ended")
    assert cancelled.seen is not None
    assert gs.get("out/_beamlabel/lock") == other


def test_gs_a_lock_is_dated_before_its_request(gcs, monkeypatch):
    """A storage that answers late has had the lock for some time when it says so."""
    with locked(gcs.uri("out")) as lock:
        monkeypatch.setattr(lease, "RENEW_SECONDS", 0.05)
        gcs.server.delay(1.5)
        begin = lease._now()
        assert lock._renew()
        assert lock._renewed_at < begin + 0.5
        gcs.server.delay(0)
    gcs.server.delay(1.5)
    begin = lease._now()
    with locked(gcs.uri("out")) as lock:
        assert lock._renewed_at < begin + 0.5
        gcs.server.delay(0)


@pytest.mark.timeout(120)
def test_gs_a_renewal_that_hangs_does_not_outlive_the_lock(gcs, monkeypatch):
    monkeypatch.setattr(lease, "RENEW_SECONDS", 0.05)
    gate = threading.Event()

    def hang(*arguments):
        gate.wait()
        raise OSError("at last")

    with (
        cancellation() as cancelled,
        pytest.raises(OutputLockedError, match="not renewed in time"),
        locked(gcs.uri("out")),
    ):
        monkeypatch.setattr(lease, "SURE_SECONDS", 0.5)
        monkeypatch.setattr(lease.gcs, "exchange", hang)
        signal.pause()
        raise AssertionError("not ended")
    assert cancelled.seen is not None
    assert gcs.list() == ["out/_beamlabel/lock"], "it goes stale by itself"
    gate.set()


@pytest.mark.timeout(120)
def test_gs_renewals_that_fail_are_tried_again_and_end_before_the_lock_is_stale(gcs, monkeypatch):
    """Of all tries of a renewal, the last begins well before the lock could be taken over."""
    assert lease.SURE_SECONDS + lease.RENEW_SECONDS < lease.STALE_SECONDS
    monkeypatch.setattr(lease, "RENEW_SECONDS", 0.05)
    deadlines, real = [], lease.gcs.exchange

    def fail(path, data, generation, deadline=None):
        deadlines.append(deadline)
        if len(deadlines) > 3:
            return real(path, data, generation, deadline)
        raise OSError("the network is down")

    with locked(gcs.uri("out")) as lock:
        monkeypatch.setattr(lease.gcs, "exchange", fail)
        before = lock._renewed_at
        while lock._renewed_at == before:
            time.sleep(0.02)
        assert not lock.is_lost
    assert all(0 < deadline < lease.STALE_SECONDS - lease.SURE_SECONDS for deadline in deadlines)
    assert gcs.list() == []


def test_gs_a_renewal_that_was_done_and_failed_is_still_ours(gcs, monkeypatch):
    """The storage did it, and no answer came: the next one finds another generation, of its own making."""
    with locked(gcs.uri("out")) as lock:
        real = lease.gcs.exchange

        def lose_the_answer(*arguments):
            real(*arguments)
            raise TimeoutError("no answer")

        with monkeypatch.context() as patch:
            patch.setattr(lease.gcs, "exchange", lose_the_answer)
            assert lock._renew()
        assert lock._renew()
        assert lock._renew()
        lock.check()
    assert gcs.list() == []


def test_gs_no_thread_to_renew_in_leaves_no_lock(gcs, monkeypatch):
    with no_more_threads(monkeypatch, "lock"), pytest.raises(RuntimeError), locked(gcs.uri("out")):
        pass
    assert gcs.list() == []


@pytest.mark.timeout(120)
def test_gs_an_unforeseen_error_of_the_thread_ends_the_run(gcs, monkeypatch):
    monkeypatch.setattr(lease, "RENEW_SECONDS", 0.05)

    def fail(*arguments):
        raise SystemExit("injected")

    with cancellation() as cancelled, pytest.raises(OutputLockedError), locked(gcs.uri("out")):
        monkeypatch.setattr(lease.gcs, "exchange", fail)
        signal.pause()
    assert cancelled.seen is not None


# --- what is not ours ---

FOREIGN = [b"", b"[1]", b"held by rsync", b'{"host": "a", "pid": 1}', b"\x00\xff"]


@pytest.mark.parametrize("content", FOREIGN)
def test_a_foreign_lock_is_named_and_left_alone(tmp_path, gcs, content):
    gcs.put("out/_beamlabel/lock", content)
    age(gcs, 1e6)
    with pytest.raises(UsageError, match=r"out/_beamlabel/lock is not beamlabel's"), locked(gcs.uri("out")):
        pass
    assert gcs.get("out/_beamlabel/lock") == content
    path = Path(staging.beside(str(tmp_path / "out")), layout.LOCK)
    path.parent.mkdir()
    path.write_bytes(content)
    with pytest.raises(UsageError, match="lock is not beamlabel's"), locked(str(tmp_path / "out")):
        pass
    assert path.read_bytes() == content


@pytest.mark.parametrize("kind", ["link", "folder", "pipe", "link to our folder", "a file for our folder"])
def test_something_else_in_place_of_a_local_lock(tmp_path, kind):
    own = Path(staging.beside(str(tmp_path / "out")))
    (tmp_path / "theirs").mkdir()
    theirs = tmp_path / "theirs" / layout.LOCK
    theirs.write_bytes(holder())
    if kind == "link to our folder":
        own.symlink_to(tmp_path / "theirs")
    elif kind == "a file for our folder":
        own.write_bytes(b"theirs")
    else:
        own.mkdir()
    if kind == "link":
        (own / layout.LOCK).symlink_to(theirs)
    elif kind == "folder":
        (own / layout.LOCK).mkdir()
    elif kind == "pipe":
        os.mkfifo(own / layout.LOCK)
    before = sorted(tmp_path.rglob("*"))
    content = theirs.read_bytes()
    with pytest.raises(UsageError, match="not beamlabel's"), locked(str(tmp_path / "out")):
        pass
    assert sorted(tmp_path.rglob("*")) == before
    assert theirs.read_bytes() == content


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


@pytest.mark.parametrize("kind", ["a file", "a link to nowhere"])
def test_something_that_is_no_folder_above_the_output(tmp_path, kind):
    above = tmp_path / "above"
    if kind == "a file":
        above.write_bytes(b"theirs")
    else:
        above.symlink_to(tmp_path / "nowhere")
    with pytest.raises(UsageError), locked(str(above / "out")):
        pass
    assert list(tmp_path.iterdir()) == [above]
