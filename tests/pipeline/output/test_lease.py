"""The lock of an output on ``gs://``: acquisition, renewal, and loss."""

import json
import os
import signal
import threading
import time

import pytest

from beamlabel.pipeline import layout
from beamlabel.pipeline.output import lease
from beamlabel.pipeline.output.lock import OutputLockedError, locked
from beamlabel.pipeline.process.cancellation import cancellation
from beamlabel.transforms import storage
from support.locks import age, holder
from support.threads import no_more_threads


def test_the_second_run_is_refused(gs, hold):
    process = hold(gs.uri("out"))
    with (
        pytest.raises(
            OutputLockedError,
            match=rf"gs://\S+/out is locked by .* \(host \S+, pid {process.pid}, started .* ago",
        ),
        locked(gs.uri("out")),
    ):
        pass
    assert gs.list() == ["out/_beamlabel/lock"]


def test_one_process_takes_it_once(gs):
    with locked(gs.uri("out")):
        with pytest.raises(OutputLockedError, match=rf"pid {os.getpid()}\b"), locked(gs.uri("out")):
            pass
        assert gs.list() == ["out/_beamlabel/lock"]
    assert gs.list() == []


def test_a_lock_whose_first_answer_is_lost_is_taken(gs):
    gs.server.fail_next(1, 503, method="POST", contains="/upload/", done=True)
    with locked(gs.uri("out")), pytest.raises(OutputLockedError), locked(gs.uri("out")):
        pass
    assert gs.list() == []


def test_the_lock_of_the_new_holder_stays(gs):
    with locked(gs.uri("out")):
        gs.put("out/_beamlabel/lock", holder(host="elsewhere"))
    assert gs.list() == ["out/_beamlabel/lock"]


def test_the_lock_goes_with_the_run(gs):
    with locked(gs.uri("out")):
        assert gs.list() == ["out/_beamlabel/lock"]
    assert gs.list() == []


def test_a_dead_process_of_this_machine_frees_it_at_once(gs, hold):
    process = hold(gs.uri("out"))
    process.kill()
    process.wait()
    with locked(gs.uri("out")):
        assert json.loads(gs.get("out/_beamlabel/lock"))["pid"] == os.getpid()
    assert gs.list() == []


def test_a_number_that_another_process_has_now_is_a_dead_one(gs):
    gs.put("out/_beamlabel/lock", holder(ticks=1))
    with locked(gs.uri("out")):
        pass


ELSEWHERE = holder(host="elsewhere", system="another boot")
# As a later version might write the lock.
NOBODY = json.dumps({"format": layout.LOCK_FORMAT, "who": "not said"}).encode()


@pytest.mark.parametrize("held", [ELSEWHERE, NOBODY])
@pytest.mark.parametrize("skew", [-3600, 0, 3600])
def test_another_machine_is_believed_for_five_minutes_of_the_storages_clock(gcs, monkeypatch, held, skew):
    """The clock of this machine does not matter; here the test moves it in its own thread only."""
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


def test_a_lock_is_renewed(gs, monkeypatch):
    monkeypatch.setattr(lease, "RENEW_SECONDS", 0.05)
    with locked(gs.uri("out")):
        first = storage.stat(gs.uri("out/_beamlabel/lock")).version
        end = time.monotonic() + 60
        while storage.stat(gs.uri("out/_beamlabel/lock")).version == first:
            assert time.monotonic() < end
            time.sleep(0.02)
    assert gs.list() == []


def test_a_renewal_whose_answer_is_lost_counts(gs, monkeypatch):
    monkeypatch.setattr(lease, "RENEW_SECONDS", 0.05)
    with locked(gs.uri("out")):
        gs.server.fail_next(1, 503, method="POST", contains="/upload/", done=True)
        looked = threading.Event()
        gs.server.before("/o/out/_beamlabel/lock", looked.set)
        assert looked.wait(60), "the lock's owner is checked"
    assert gs.list() == []


def test_a_run_that_loses_the_lock_ends(gs, monkeypatch):
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


def test_a_lock_is_dated_before_its_request(gcs, monkeypatch):
    """If the storage answers late, the lock is already some time old."""
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
def test_a_renewal_that_hangs_does_not_outlive_the_lock(gcs, monkeypatch):
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
    assert gcs.list() == ["out/_beamlabel/lock"], "it becomes stale by itself"
    gate.set()


@pytest.mark.timeout(120)
def test_renewals_that_fail_are_tried_again_and_end_before_the_lock_is_stale(gcs, monkeypatch):
    """The last try of a renewal begins well before another run could take over the lock."""
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


def test_a_renewal_that_was_done_and_failed_is_still_ours(gcs, monkeypatch):
    """The storage renewed the lock but the answer was lost: the next try finds another generation, its own."""
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


def test_no_thread_to_renew_in_leaves_no_lock(gcs, monkeypatch):
    with no_more_threads(monkeypatch, "lock"), pytest.raises(RuntimeError), locked(gcs.uri("out")):
        pass
    assert gcs.list() == []


@pytest.mark.timeout(120)
def test_an_unforeseen_error_of_the_thread_ends_the_run(gcs, monkeypatch):
    monkeypatch.setattr(lease, "RENEW_SECONDS", 0.05)

    def fail(*arguments):
        raise SystemExit("injected")

    with cancellation() as cancelled, pytest.raises(OutputLockedError), locked(gcs.uri("out")):
        monkeypatch.setattr(lease.gcs, "exchange", fail)
        signal.pause()
    assert cancelled.seen is not None
