"""Batches that hang in native code, with and without the GIL: the process ends, and the hang is recorded."""

import json
import os
import signal
import subprocess
import sys
import time
from types import SimpleNamespace

import numpy as np
import pytest

from beamlabel.transforms.deadline import guard, timeouts
from beamlabel.transforms.deadline.watchdog import EXIT_CODE, BatchDeadline
from beamlabel.transforms.records import ImageInfo, ImageRef, LoadedImage
from support.paths import ROOT

_HANGING = """
import ctypes, sys, threading, time
from pathlib import Path
import numpy as np
from beamlabel.transforms.deadline.watchdog import BatchDeadline, watched
from beamlabel.transforms.records import ImageInfo, ImageRef, LoadedImage

directory, how = sys.argv[1:]
images = [
    LoadedImage(ImageRef("u", f"list#{row}", "u", row, unit), np.zeros((1, 1, 3), np.uint8), ImageInfo(1, 1, "png", 9))
    for row, unit in enumerate(("a", "a", "b"))
]
deadline = BatchDeadline(directory, 0.5)
with watched(images[:1], BatchDeadline(directory)):
    pass
with watched(images, deadline):
    {
        # PyDLL calls with Python's lock, CDLL without.
        "with the lock": lambda: ctypes.PyDLL(None).pause(),
        "without": lambda: ctypes.CDLL(None).pause(),
        "in a thread": lambda: threading.Thread(target=ctypes.CDLL(None).pause).start() or time.sleep(600),
        "not": lambda: None,
    }[how]()
time.sleep(1.5)
"""


def image(number: int, unit: str | None = "a") -> LoadedImage:
    ref = ImageRef("u", f"list#{number}", "u", number, unit)
    return LoadedImage(ref, np.zeros((1, 1, 3), np.uint8), ImageInfo(1, 1, "png", 9))


@pytest.mark.parametrize(
    ("how", "code"),
    [
        ("with the lock", -signal.SIGALRM),
        ("without", EXIT_CODE),
        ("in a thread", EXIT_CODE),
        ("not", 0),
    ],
)
def test_a_hanging_process_is_ended_and_its_images_are_remembered(tmp_path, how, code):
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    argv = [sys.executable, "-c", _HANGING, str(tmp_path / "timeouts"), how]
    ended = subprocess.run(argv, env=environment, capture_output=True, text=True, timeout=120, check=False)
    assert ended.returncode == code, ended.stderr
    found = {path.name: json.loads(path.read_text())["ref_ids"] for path in tmp_path.rglob("*.json")}
    assert found == ({} if how == "not" else {"a.1.json": ["list#0", "list#1"], "b.1.json": ["list#2"]})


def test_the_guard_is_gone_with_its_process(tmp_path):
    script = _HANGING.replace("time.sleep(1.5)", "import os; os._exit(7)")
    argv = [sys.executable, "-c", script, str(tmp_path), "not"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    # It shares standard error, which closes only when the last process has ended.
    ended = subprocess.run(argv, env=environment, stderr=subprocess.PIPE, timeout=120, check=False)
    assert (ended.returncode, ended.stderr) == (7, b"")


def test_an_image_that_hangs_twice_fails_and_others_of_its_batch_are_suspects(tmp_path):
    directory = timeouts.directory(str(tmp_path))
    assert timeouts.read(directory, "a") == timeouts.Timeouts()
    timeouts.tell(directory, "a", ["list#0", "list#1", "list#2"], 600)
    assert timeouts.read(directory, "a").suspects == {"list#0", "list#1", "list#2"}
    timeouts.tell(directory, "a", ["list#1"], 600)
    timeouts.tell(directory, "b", ["list#1"], 600)
    assert timeouts.read(directory, "a") == timeouts.Timeouts({"list#1"}, {"list#0", "list#2"})


def test_suspects_are_alone_and_images_stay_in_order():
    images = [image(number) for number in range(6)] + [image(1, "b"), image(7, None)]
    assert timeouts.runs(images) == [images]
    timeouts.suspect("a", timeouts.Timeouts(suspects=frozenset({"list#1", "list#2"})))
    try:
        found = timeouts.runs(images)
        assert [one for run in found for one in run] == images
        assert [len(run) for run in found] == [1, 1, 1, 5]
    finally:
        timeouts.suspect("a", timeouts.Timeouts())
    assert timeouts.runs(images) == [images]


def test_the_usual_deadline_grows_with_the_batch():
    assert [BatchDeadline("").of(images) for images in (0, 1, 128)] == [600, 600, 1280]
    assert BatchDeadline("", 7).of(128) == 7


_SILENT = """
import ctypes, os, signal, sys, time
from beamlabel.transforms.deadline import watchdog
watchdog.LEAST_SILENCE_SECONDS, watchdog.BEAT_SECONDS = 1.0, 0.1
directory, how = sys.argv[1:]
watchdog.watch_worker()
with watchdog.watched((), watchdog.BatchDeadline(directory, 0.1)):
    pass
time.sleep(1)
{
    "stopped": lambda: os.kill(os.getpid(), signal.SIGSTOP),
    "with the lock": lambda: ctypes.PyDLL(None).pause(),
    "not": lambda: time.sleep(2),
}[how]()
os._exit(7)
"""


@pytest.mark.parametrize(
    ("how", "worker_id", "code"),
    [
        ("stopped", "1", -signal.SIGKILL),
        ("with the lock", "1", -signal.SIGALRM),
        ("not", "1", 7),
    ],
)
def test_a_worker_that_is_silent_between_two_batches_is_ended(tmp_path, how, worker_id, code):
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "WORKER_ID": worker_id}
    argv = [sys.executable, "-c", _SILENT, str(tmp_path / "timeouts"), how]
    ended = subprocess.run(argv, env=environment, capture_output=True, text=True, timeout=120, check=False)
    assert ended.returncode == code, ended.stderr
    assert ("silent" in ended.stderr) == (code != 7)
    assert not list(tmp_path.rglob("*.json"))


_STOPPED_AT_ITS_START = """
import os, signal
from beamlabel.transforms.deadline import watchdog
watchdog.LEAST_SILENCE_SECONDS = watchdog.LEAST_SECONDS = 1.0
watchdog.Watchdog._say = lambda *_, **words: os.kill(os.getpid(), signal.SIGSTOP)
watchdog.watch_worker()
"""


def test_a_worker_that_stops_before_its_first_message_is_ended():
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "WORKER_ID": "1"}
    argv = [sys.executable, "-c", _STOPPED_AT_ITS_START]
    ended = subprocess.run(argv, env=environment, capture_output=True, timeout=120, check=False)
    assert ended.returncode == -signal.SIGKILL, ended.stderr


def test_the_guard_starts_before_numpy_is_imported():
    script = "import sys; from beamlabel.pipeline.runners import worker_boot; print('numpy' in sys.modules)"
    ran = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, cwd=ROOT)
    assert ran.stdout.strip() == "False"


def test_a_worker_that_is_stopped_together_with_its_launcher_goes_on_with_it(tmp_path):
    """As by Ctrl-Z and ``fg``."""
    launcher = (
        "import os, subprocess, sys, signal, threading, time\n"
        f"worker = subprocess.Popen([sys.executable, '-c', {_SILENT!r}, {str(tmp_path)!r}, 'stopped'])\n"
        "while open(f'/proc/{worker.pid}/stat').read().rpartition(')')[2].split()[0] != 'T': time.sleep(0.01)\n"
        "print(worker.pid, flush=True)\n"
        "os.kill(os.getpid(), signal.SIGSTOP)\n"
        "os.kill(worker.pid, signal.SIGCONT)\n"
        "sys.exit(worker.wait())\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "WORKER_ID": "1"}
    process = subprocess.Popen([sys.executable, "-c", launcher], env=environment, stdout=subprocess.PIPE)
    assert process.stdout is not None
    process.stdout.readline()
    time.sleep(2.5)  # longer than the allowed silence
    process.send_signal(signal.SIGCONT)
    assert process.wait(60) == 7


def test_a_guard_that_was_stopped_itself_gives_the_worker_the_time_back(monkeypatch):
    """As in a paused container: both resume at the same moment, and the clock has moved on."""
    clock = iter([0.0, 0.0, 100.0])
    monkeypatch.setattr(guard, "time", SimpleNamespace(monotonic=lambda: next(clock)))
    monkeypatch.setattr(guard, "select", SimpleNamespace(select=lambda *_: ([], [], [])))
    waiting = guard.Guard(1, float("inf"))
    waiting._until = {1: 2.0}
    waiting._listen(2.0)
    assert waiting._until == {1: 100.0}
