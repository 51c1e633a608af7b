"""The cache shared with other users of tensorflow-hub: one downloads, and no one waits for dead processes."""

import json
import os
import shutil
import socket
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from beamlabel.transforms.hub.download import hub_directory
from beamlabel.transforms.hub.files import Receipt, fingerprint, scan
from beamlabel.transforms.hub.resolve import ModuleError, NotAtHandError, resolve_module
from beamlabel.transforms.hub.shared_cache import fetch_to_shared
from support.paths import DATA, ROOT
from support.read_only import contents, with_read_only
from support.servers import FileServer

TINY = DATA / "tiny_classification_1.tar.gz"
HUB_PATH = "/google/imagenet/tiny/classification/1"
PIN = "from beamlabel.transforms.hub.resolve import resolve_module\n"

# Prints its log and the module's fingerprint. It polls more often than every 5 s.
FETCHING = f"""
import logging, sys, time
{PIN}
sleep = time.sleep
time.sleep = lambda seconds: sleep(min(seconds, 0.05))
logging.basicConfig(stream=sys.stdout, level=logging.INFO, format="%(message)s")
print("found", resolve_module(*sys.argv[1:]).fingerprint, flush=True)
"""


@pytest.fixture
def shared(tmp_path, monkeypatch):
    monkeypatch.setenv("TFHUB_CACHE_DIR", str(tmp_path / "shared"))
    return tmp_path / "shared"


class HeldServer(FileServer):
    """A server whose answers wait until ``event`` is set."""

    def __init__(self):
        self.event = threading.Event()
        super().__init__()

    def _send(self, handler, reply):
        self.event.wait(300)
        FileServer._send(handler, reply)


@pytest.fixture
def held_hub():
    server = HeldServer()
    server.files[HUB_PATH] = TINY.read_bytes()
    yield server
    server.event.set()
    server.close()


def fetching(handle, cache):
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1"}
    arguments = [sys.executable, "-c", FETCHING, handle, str(cache)]
    return subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True, env=environment)


def end(process):
    process.kill()
    process.wait()
    process.stdout.close()


def names(directory):
    return sorted(path.name for path in directory.iterdir())


def test_of_two_processes_one_fetches_and_both_have_the_module(held_hub, shared, tmp_path):
    handle = held_hub.url_of(HUB_PATH)
    processes = [fetching(handle, tmp_path / "cache") for _ in range(2)]
    try:
        # One must log that it downloads, the other that it waits. Then the hub answers.
        said = [process.stdout.readline() for process in processes]
        assert sorted("already being downloaded by" in line for line in said) == [False, True]
        assert held_hub.count(HUB_PATH) <= 1
        held_hub.event.set()
        rest = [process.communicate()[0].splitlines() for process in processes]
    finally:
        for process in processes:
            end(process)
    assert [process.returncode for process in processes] == [0, 0]
    expected = resolve_module(str(TINY), tmp_path / "other").fingerprint
    assert [lines[-1] for lines in rest] == [f"found {expected}"] * 2
    assert held_hub.count(HUB_PATH) == 1
    directory = hub_directory(handle, shared).name
    assert [name for name in names(shared) if name.startswith(directory)] == [
        directory,
        f"{directory}.descriptor.txt",
    ]


def test_a_process_killed_while_fetching_delays_nobody(held_hub, shared, tmp_path):
    handle = held_hub.url_of(HUB_PATH)
    process = fetching(handle, tmp_path / "cache")
    assert "Downloading" in process.stdout.readline()
    end(process)
    held_hub.event.set()
    assert any(name.endswith(".lock") for name in names(shared))
    assert resolve_module(handle, tmp_path / "cache").path.is_dir()
    assert not [name for name in names(shared) if name.endswith((".lock", ".tmp"))]


def test_a_lock_of_another_machine_is_reported_and_broken(hub, shared, tmp_path, monkeypatch, caplog):
    handle = hub.url_of(HUB_PATH)
    directory = hub_directory(handle, shared)
    shared.mkdir()
    directory.with_name(f"{directory.name}.lock").write_text("elsewhere.1.f00")
    now = [0.0]
    import tensorflow_hub

    class Clock:
        time = staticmethod(lambda: now[0])

        @staticmethod
        def sleep(seconds):
            now[0] += seconds

    monkeypatch.setattr(tensorflow_hub.resolver, "time", Clock)
    with caplog.at_level("INFO", "beamlabel"):
        assert resolve_module(handle, tmp_path).path.is_dir()
    assert now[0] <= 60
    assert "already being downloaded by 'elsewhere.1.f00'" in caplog.text
    assert "due to inactivity" in caplog.text


def test_a_failed_writer_leaves_nothing(shared):
    def fail(directory):
        (directory / "half").write_bytes(b"x")
        raise ModuleError("the hub is gone")

    with pytest.raises(ModuleError, match="the hub is gone"):
        fetch_to_shared("http://hub/m/1", shared / "m", fail)
    assert names(shared) == []


def test_we_fetch_the_same_files_as_tensorflow_hub(hub, shared, tmp_path):
    """Each finds the other's module, and both write the same files."""
    hub.files[HUB_PATH] = TINY.read_bytes()
    handle = hub.url_of(HUB_PATH)
    ours = resolve_module(handle, tmp_path)
    import tensorflow_hub

    assert tensorflow_hub.resolve(handle) == str(ours.path)
    descriptor = (shared / f"{ours.path.name}.descriptor.txt").read_text()
    assert descriptor.startswith(f"Module: {handle}\n")
    for path in shared.iterdir():
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    assert tensorflow_hub.resolve(handle) == str(ours.path)
    assert resolve_module(handle, tmp_path) == ours
    assert hub.count(HUB_PATH) == 2


def test_without_tensorflow_the_extra_is_named(hub, tmp_path):
    code = (
        "import sys; sys.modules['tensorflow'] = None\n" + PIN + "try: resolve_module(*sys.argv[1:])\n"
        "except ValueError as error: print(error)"
    )
    arguments = [sys.executable, "-c", code, hub.url_of(HUB_PATH), str(tmp_path)]
    said = subprocess.run(arguments, capture_output=True, text=True, check=True, cwd=ROOT).stdout
    assert ".[launcher]" in said
    assert hub.count(HUB_PATH) == 0


# --- read-only caches, and forged ones


_READ_ONLY = f"""
import sys
{PIN}
for fetches in (False, True):
    print(resolve_module(sys.argv[1], sys.argv[2], fetches=fetches).fingerprint)
try:
    resolve_module(sys.argv[1] + "0", sys.argv[2])
except ValueError as error:
    print(str(error).replace(chr(10), " "))
"""


@pytest.mark.parametrize(("has_receipt", "has_variables"), [(True, True), (False, True), (False, False)])
def test_a_module_in_a_cache_that_may_only_be_read(hub, shared, tmp_path, has_receipt, has_variables):
    """A file system mounted read-only, which also binds root."""
    handle = hub.url_of(HUB_PATH)
    directory = resolve_module(handle, tmp_path / "cache").path
    if not has_variables:
        shutil.rmtree(directory / "variables")
    expected = fingerprint(scan(directory))
    if not has_receipt:
        for path in (*shared.glob("beamlabel-*.json"), *shared.glob("*.descriptor.txt")):
            path.unlink()
    before = contents(shared)
    argv = [*with_read_only(shared), sys.executable, "-c", _READ_ONLY, handle]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [*argv, str(tmp_path / "cache")], capture_output=True, text=True, check=True, env=environment
    )
    *found, refused = done.stdout.splitlines()
    assert found == [expected, expected]
    assert str(shared) in refused
    assert contents(shared) == before
    assert hub.count(HUB_PATH) == 1


def test_a_damaged_module_in_a_cache_that_may_only_be_read(hub, shared, tmp_path):
    handle = hub.url_of(HUB_PATH)
    first = resolve_module(handle, tmp_path / "cache")
    with (first.path / "saved_model.pb").open("ab") as file:
        file.write(b"x")
    code = f"import sys\n{PIN}resolve_module(*sys.argv[1:])"
    argv = [*with_read_only(shared), sys.executable, "-c", code, handle]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [*argv, str(tmp_path / "cache")], capture_output=True, text=True, check=False, env=environment
    )
    assert done.returncode == 1
    assert "is damaged and cannot be replaced: Read-only file system" in done.stderr
    assert hub.count(HUB_PATH) == 1


@pytest.mark.parametrize("directory", ["../victim", "victim", "/victim", "", 1, None, ["x"]])
def test_a_forged_receipt_leads_nowhere(hub, shared, tmp_path, directory):
    handle = hub.url_of(HUB_PATH)
    first = resolve_module(handle, tmp_path / "cache")
    (receipt,) = shared.glob("beamlabel-*.json")
    victim = shared / "victim"
    shutil.copytree(first.path, victim)
    (victim / "assets" / "x").write_text("another module")
    forged = {**json.loads(receipt.read_text()), "folder": directory}
    forged["files"] = [vars(entry) for entry in scan(victim)]
    receipt.write_text(json.dumps(forged))
    with pytest.raises(NotAtHandError):
        resolve_module(handle, tmp_path / "cache", fetches=False)
    assert resolve_module(handle, tmp_path / "cache") == first


@pytest.mark.parametrize(
    "files", ["x", [1], [{"path": 1, "size": 1, "sha256": ""}], [{"path": "\0", "size": 1, "sha256": ""}], {}]
)
def test_a_receipt_that_makes_no_sense_is_none(tmp_path, files):
    (tmp_path / "m").mkdir()
    (tmp_path / "m" / "x").write_bytes(b"x")
    (tmp_path / "r.json").write_text(json.dumps({"folder": "m", "files": files}))
    receipt = Receipt.read(tmp_path / "r.json")
    assert receipt is None or not receipt.holds(tmp_path / "m")
    (tmp_path / "r.json").write_text("[" * 100_000)
    assert Receipt.read(tmp_path / "r.json") is None


def test_hosts_have_the_name_that_locks_have():
    """Checks the host names that ``remove_dead_locks`` compares."""
    from tensorflow_hub import resolver

    assert resolver._lock_file_contents("f00") == f"{socket.gethostname()}.{os.getpid()}.f00"
    assert resolver._lock_filename("/m") == "/m.lock"
    assert Path(resolver._temp_download_dir("/m", "f00")) == Path("/m.f00.tmp")
