"""A child process with a deadline: the next request is answered, even if the child dies or hangs."""

import os
import select
import signal
import subprocess
import sys
import threading
import time
from contextlib import ExitStack, nullcontext
from types import SimpleNamespace

import pytest

from beamlabel.transforms.worker import limited_process
from beamlabel.transforms.worker.limited_process import (
    LimitedProcess,
    LimitedProcesses,
    OverdueError,
    ProcessDiedError,
)
from support.paths import ROOT

CHILD = "support.limited_answers"


@pytest.fixture
def children():
    pool = LimitedProcesses(CHILD, 2)
    yield pool
    pool.close()


def ask(children, words, data=b"", seconds=60.0, lock=None):
    with ExitStack() as held:
        child = children.take(held)
        answer = child.ask(words, data, seconds, lock or nullcontext(), held)
        content = bytearray(len(data))
        if data:
            child.read_content(memoryview(content))
        return answer, bytes(content), child.pid


def ended(pid):
    """Waits until a process has ended, which must happen."""
    try:
        opened = os.pidfd_open(pid)
    except ProcessLookupError:
        return True
    with os.fdopen(opened):
        poll = select.poll()
        poll.register(opened, select.POLLIN)
        return bool(poll.poll(60_000))


def test_one_child_answers_one_after_another(children):
    data = bytes(range(256)) * 4000  # more than a pipe holds at first
    _, content, pid = ask(children, b"echo", data)
    assert content == data
    assert ask(children, b"again")[::2] == (b"again", pid)


@pytest.mark.parametrize("words", [b"hang", b"spin"])
def test_a_child_that_does_not_answer_is_killed(children, words):
    pid = ask(children, b"")[2]
    with pytest.raises(OverdueError):
        ask(children, words, seconds=0.2 if words == b"hang" else 60)
    assert ended(pid)
    assert ask(children, b"next")[0] == b"next"


@pytest.mark.skipif(sys.platform != "linux", reason="other systems do not report a process's CPU time")
@pytest.mark.parametrize(
    "waits",
    [pytest.param([0.9] * 3, id="a busy machine"), pytest.param([1000.0], id="Ctrl-Z or a paused container")],
)
def test_a_child_that_is_kept_from_its_cpu_is_not_overdue(children, monkeypatch, waits):
    """The clock moves on by these seconds, and the child does not run, with a deadline of one second."""
    pid, now, left = ask(children, b"")[2], [0.0], list(waits)

    class Poll:
        def register(self, descriptor, event):
            self._real = select.poll()
            self._real.register(descriptor, event)

        def poll(self, milliseconds):
            if left:
                now[0] += left.pop()
                return []
            os.kill(pid, signal.SIGCONT)
            return self._real.poll(60_000)

    fake_time = SimpleNamespace(monotonic=lambda: now[0], clock_gettime=time.clock_gettime)
    fake_select = SimpleNamespace(poll=Poll, POLLIN=select.POLLIN, POLLOUT=select.POLLOUT)
    monkeypatch.setattr(limited_process, "time", fake_time)
    monkeypatch.setattr(limited_process, "select", fake_select)
    os.kill(pid, signal.SIGSTOP)
    assert ask(children, b"late", seconds=1.0)[::2] == (b"late", pid)
    assert now[0] == pytest.approx(sum(waits))


def test_a_pause_between_two_looks_is_no_time_of_the_child(children, monkeypatch):
    """As if the machine was paused while this process copied the request."""
    pid = ask(children, b"")[2]
    real, late = os.write, [0.0]

    def write(descriptor, data):
        late[0] = 1000.0
        return real(descriptor, data)

    fake = SimpleNamespace(monotonic=lambda: time.monotonic() + late[0], clock_gettime=time.clock_gettime)
    monkeypatch.setattr(limited_process, "time", fake)
    monkeypatch.setattr(limited_process.os, "write", write)
    os.kill(pid, signal.SIGSTOP)
    threading.Timer(0.2, os.kill, (pid, signal.SIGCONT)).start()
    assert ask(children, b"late", seconds=1.0)[::2] == (b"late", pid)


@pytest.mark.parametrize(("words", "how"), [(b"crash", "SIGSEGV"), (b"exit", "exit code 3")])
def test_a_child_that_dies_at_a_request(children, words, how):
    with pytest.raises(ProcessDiedError, match=how) as caught:
        ask(children, words)
    assert caught.value.begun
    assert ask(children, b"next")[0] == b"next"


@pytest.mark.parametrize("words", [b"much", b"write"])
def test_a_child_with_an_invalid_reply_is_ended(children, words):
    with pytest.raises(ProcessDiedError, match="invalid answer"):
        ask(children, words)
    assert ask(children, b"next")[0] == b"next"


def test_content_of_another_length_is_refused(children):
    with ExitStack() as held, pytest.raises(ProcessDiedError, match="invalid answer"):
        child = children.take(held)
        child.ask(b"short", b"", 60, nullcontext(), held)
        child.read_content(memoryview(bytearray(4)))


def test_output_of_a_library_is_no_answer(children):
    assert ask(children, b"print")[0] == b"print"


def test_memory_has_a_limit(children):
    assert ask(children, b"fill")[0] == b"MemoryError"


def test_a_child_that_died_while_idle_is_replaced(children):
    pid = ask(children, b"")[2]
    os.kill(pid, signal.SIGKILL)
    assert ended(pid)
    answer, _, other = ask(children, b"next")
    assert answer == b"next" and other != pid


def test_the_lock_is_held_until_the_answer_is_taken(children):
    lock = threading.Lock()
    with ExitStack() as held:
        child = children.take(held)
        assert child.ask(b"lock", b"", 60, lock, held) == b"lock"
        assert lock.locked()
    assert not lock.locked()
    ask(children, b"none", lock=lock)


def test_as_many_children_as_ask_at_a_time_up_to_the_limit(children):
    begun = threading.Barrier(3)

    def one(pids):
        begun.wait()
        pids.add(ask(children, b"")[2])

    pids: set[int] = set()
    threads = [threading.Thread(target=one, args=(pids,)) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert 1 <= len(pids) <= 2


def test_a_child_ends_with_its_parent():
    code = (
        "import os, sys, threading\n"
        "from contextlib import ExitStack, nullcontext\n"
        "from beamlabel.transforms.worker.limited_process import LimitedProcess\n"
        f"child = LimitedProcess({CHILD!r})\n"
        "print(child.pid, flush=True)\n"
        "with ExitStack() as held: child.ask(b'hang', b'', 1e6, nullcontext(), held)\n"
    )
    path = os.pathsep.join((str(ROOT), str(ROOT / "tests")))
    with subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, env={**os.environ, "PYTHONPATH": path}
    ) as parent:
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
        parent.kill()
    assert ended(pid)


def test_a_forked_process_has_children_of_its_own(children):
    pid = ask(children, b"")[2]
    forked = os.fork()
    if not forked:
        children.forget()
        os._exit(0)
    assert os.waitpid(forked, 0)[1] == 0
    assert ask(children, b"next")[::2] == (b"next", pid)


def test_a_child_that_does_not_come_up():
    with pytest.raises(ProcessDiedError, match="exit code 1") as caught:
        LimitedProcess("support.no_such_module")
    assert not caught.value.begun
