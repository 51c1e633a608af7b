"""The staged artifact on worker hosts: real processes, a GCS server that counts, and one cache per host."""

import hashlib
import logging
import mmap
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from beamlabel.pipeline.output.publish import publish
from beamlabel.pipeline.process.cancellation import cancellation
from beamlabel.pipeline.runners.choose import choose
from beamlabel.pipeline.runners.execute import execute
from beamlabel.transforms import storage
from beamlabel.transforms.storage import host_cache
from beamlabel.transforms.storage.errors import ChecksumError
from beamlabel.transforms.storage.host_cache import open_artifact
from support.gcs_server import Bucket
from support.jobs import TINY, photos, prepared, uri_list
from support.paths import ROOT
from support.servers import FileServer

# Opens an artifact like a worker process, reports it, and lives until its input ends.
WORKER = """
import hashlib, sys
from beamlabel.transforms.storage.host_cache import open_artifact
path, sha256, max_bytes = sys.argv[1:]
content = open_artifact(path, sha256, max_bytes=int(max_bytes)).content
print(type(content).__name__, hashlib.sha256(content).hexdigest(), flush=True)
sys.stdin.read()
"""
BIG = 1 << 40


class Worker:
    """A worker process of the host whose cache is the directory."""

    def __init__(self, cache: Path, path: str, sha256: str, max_bytes: int = BIG) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", WORKER, path, sha256, str(max_bytes)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT,
            env={**os.environ, "BEAMLABEL_CACHE": str(cache)},
        )  # fmt: skip

    def opened(self) -> list[str]:
        """Waits until the worker has opened the artifact; returns the way and the SHA-256 of the content."""
        return self.process.stdout.readline().split()

    def end(self) -> None:
        self.process.communicate()
        assert self.process.returncode == 0


@pytest.fixture
def start():
    """Starts workers that do not outlive the test."""
    workers: list[Worker] = []

    def start(*arguments) -> Worker:
        workers.append(Worker(*arguments))
        return workers[-1]

    yield start
    for worker in workers:
        worker.process.kill()
        worker.process.communicate()


@pytest.fixture(autouse=True)
def fresh_process(monkeypatch):
    """Resets the state of opened artifacts and messages."""
    monkeypatch.setattr(host_cache, "_in_use", {})
    monkeypatch.setattr(host_cache, "_warned", False)


@pytest.fixture
def own_cache(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("BEAMLABEL_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def staged(gcs: Bucket, name: str = "module.beamlabel", size: int = 100_000) -> tuple[str, str]:
    content = hashlib.shake_128(name.encode()).digest(size)
    return gcs.put(name, content), hashlib.sha256(content).hexdigest()


def downloads(gcs: Bucket) -> int:
    return gcs.server.count("GET", "module")


def test_a_host_fetches_once_for_all_its_processes_and_so_does_another(gcs, tmp_path, start):
    path, sha256 = staged(gcs)
    gcs.server.delay(0.5)  # all of a host's ask while the first one fetches
    workers = [start(tmp_path / host, path, sha256) for host in ("host-a", "host-b") for _ in range(4)]
    assert [worker.opened() for worker in workers] == [["mmap", sha256]] * 8
    assert downloads(gcs) == 2
    for worker in workers:
        worker.end()
    assert start(tmp_path / "host-a", path, sha256).opened() == ["mmap", sha256]
    assert downloads(gcs) == 2


@pytest.mark.parametrize("damage", [lambda data: data[:-1], lambda data: b"", lambda data: b"x" + data[1:]])
def test_a_damaged_file_in_the_cache_is_fetched_anew(gcs, own_cache, damage, caplog):
    path, sha256 = staged(gcs)
    content = bytes(open_artifact(path, sha256).content)
    (file,) = (file for file in (own_cache / "staged").iterdir() if not file.suffix)
    file.write_bytes(damage(content))
    assert bytes(open_artifact(path, sha256).content) == content == file.read_bytes()
    assert downloads(gcs) == 2
    assert "is damaged" in caplog.text


LARGE = 3 << 20


@pytest.fixture
def hashed(monkeypatch) -> list[int]:
    """The files that were hashed in this process, as a list of ones."""
    real, found = host_cache._sha256, []

    def count(file):
        found.append(1)
        return real(file)

    monkeypatch.setattr(host_cache, "_sha256", count)
    return found


def test_a_host_hashes_a_large_file_once(gcs, own_cache, hashed, monkeypatch):
    path, sha256 = staged(gcs, size=LARGE)
    for _ in range(3):
        assert hashlib.sha256(open_artifact(path, sha256).content).hexdigest() == sha256
        monkeypatch.setattr(host_cache, "_in_use", {})  # as another process
    assert len(hashed) == 1
    assert downloads(gcs) == 1


def test_a_local_large_file_is_hashed_once_and_again_when_it_was_changed(own_cache, tmp_path, hashed):
    content = hashlib.shake_128(b"local").digest(LARGE)
    path, sha256 = tmp_path / "labeled.keys", hashlib.sha256(content).hexdigest()
    path.write_bytes(content)
    for _ in range(3):
        assert open_artifact(str(path), sha256).path == path
    assert len(hashed) == 1
    with path.open("r+b") as file:
        file.write(b"x")
    for _ in range(2):
        with pytest.raises(ChecksumError):
            open_artifact(str(path), sha256)
    path.write_bytes(content)
    assert bytes(open_artifact(str(path), sha256).content) == content


def overwrite(file: Path) -> None:
    """Changes a byte in the middle and restores the times."""
    before = file.stat()
    with file.open("r+b") as opened:
        opened.seek(LARGE // 2)
        opened.write(bytes([opened.read(1)[0] ^ 1]))
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))


DAMAGES = {
    "cut short": lambda file: os.truncate(file, LARGE // 2),
    "cut short and filled up": lambda file: (os.truncate(file, LARGE // 2), os.truncate(file, LARGE)),
    "overwritten": overwrite,
    "replaced": lambda file: (file.unlink(), file.write_bytes(bytes(LARGE))),
    "half a stamp": lambda file: os.truncate(f"{file}.stamp", 10),
    "no stamp": lambda file: Path(f"{file}.stamp").unlink(),
    "a stamp of nothing": lambda file: Path(f"{file}.stamp").write_bytes(b"\xff"),
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES.keys())
def test_a_large_file_in_the_cache_that_was_damaged_is_fetched_anew(gcs, own_cache, damage):
    path, sha256 = staged(gcs, size=LARGE)
    open_artifact(path, sha256)
    damage(own_cache / "staged" / sha256)
    assert hashlib.sha256(open_artifact(path, sha256).content).hexdigest() == sha256
    assert hashlib.sha256((own_cache / "staged" / sha256).read_bytes()).hexdigest() == sha256


def test_a_half_written_file_is_not_taken_for_the_whole(gcs, own_cache):
    """As after a system crash: the file has its final name and another file's stamp."""
    path, sha256 = staged(gcs, size=LARGE)
    whole = bytes(open_artifact(path, sha256).content)
    (own_cache / "staged" / sha256).write_bytes(whole[: LARGE // 3])
    (own_cache / "staged" / f"{sha256}.partial").write_bytes(whole[: LARGE // 4])
    assert bytes(open_artifact(path, sha256).content) == whole


MEMORY = """
import re, sys
from pathlib import Path
from beamlabel.transforms import storage
from beamlabel.transforms.inputs.key_index import KeyIndex
from beamlabel.transforms.storage.host_cache import open_artifact
path, sha256 = sys.argv[1:]
storage.exists(path.rpartition("/")[0] + "/nothing")  # the client is there
def kilobytes(name):
    return int(re.search(rf"{name}:\\s+(\\d+) kB", Path("/proc/self/status").read_text())[1])
before = kilobytes("VmHWM")
index = KeyIndex(open_artifact(path, sha256).content)
assert bytes(16) not in index
print(kilobytes("VmHWM") - before)
"""


def test_a_new_output_each_night_leaves_few_stamps(own_cache, tmp_path, monkeypatch):
    monkeypatch.setattr(host_cache, "_KEPT_STAMPS", 3)
    data = b"x" * (1 << 20)
    for night in range(5):
        (tmp_path / f"{night}.artifact").write_bytes(data)
        open_artifact(str(tmp_path / f"{night}.artifact"), hashlib.sha256(data).hexdigest())
    assert len(list((own_cache / "staged").glob("*.stamp"))) == 3


def test_an_index_is_never_in_memory_as_a_whole(gcs, tmp_path):
    path, sha256 = staged(gcs, size=48 << 20)
    for _ in range(2):
        command = [sys.executable, "-c", MEMORY, path, sha256]
        environment = {**os.environ, "BEAMLABEL_CACHE": str(tmp_path)}
        grown = subprocess.run(command, capture_output=True, check=True, cwd=ROOT, env=environment).stdout
        assert int(grown) < 16 << 10
    assert downloads(gcs) == 1


def test_another_staged_file_is_refused(gcs, own_cache):
    path, sha256 = staged(gcs)
    gcs.put("module.beamlabel", b"something else")
    for _ in range(2):
        with pytest.raises(ChecksumError, match=f"but the launcher staged {sha256}"):
            open_artifact(path, sha256)
    assert not [file for file in (own_cache / "staged").iterdir() if not file.suffix]
    with pytest.raises(FileNotFoundError):
        open_artifact(gcs.uri("missing"), sha256)


def test_the_lock_of_a_killed_process_is_free(gcs, tmp_path, start):
    path, sha256 = staged(gcs)
    gcs.server.delay(3)
    first = start(tmp_path, path, sha256)
    while not downloads(gcs):
        time.sleep(0.02)
    first.process.send_signal(signal.SIGKILL)
    first.process.wait()
    gcs.server.delay(0)
    assert start(tmp_path, path, sha256).opened() == ["mmap", sha256]
    assert downloads(gcs) == 2


def test_the_least_recently_used_goes_but_nothing_in_use(gcs, tmp_path, start):
    artifacts = [staged(gcs, f"module-{number}", 1000) for number in range(5)]

    def there() -> set[int]:
        names = {file.name for file in (tmp_path / "staged").iterdir()}
        return {number for number, (_, sha256) in enumerate(artifacts) if sha256 in names}

    def use(number: int) -> None:
        worker = start(tmp_path, *artifacts[number], 2500)
        assert worker.opened()[1] == artifacts[number][1]
        worker.end()

    user = start(tmp_path, *artifacts[0], 2500)
    user.opened()
    use(1)
    use(2)
    assert there() == {0, 2}
    use(3)
    assert there() == {0, 3}
    user.end()
    use(3)
    use(4)
    assert there() == {3, 4}


def test_a_process_does_not_evict_its_own(gcs, own_cache):
    artifacts = [open_artifact(*staged(gcs, f"module-{number}", 1000), max_bytes=1) for number in range(3)]
    assert len([file for file in (own_cache / "staged").iterdir() if not file.suffix]) == 3
    assert len({bytes(artifact.content) for artifact in artifacts}) == 3


def test_leftovers_of_a_killed_fetch_count_and_are_deleted(gcs, own_cache):
    directory = own_cache / "staged"
    directory.mkdir(parents=True)
    (directory / ("0" * 64 + ".partial")).write_bytes(bytes(5000))
    open_artifact(*staged(gcs, "module", 1000), max_bytes=2000)
    assert not [*directory.glob("*.partial")]


def test_without_a_cache_it_is_held_in_memory(gcs, monkeypatch, caplog):
    monkeypatch.setenv("BEAMLABEL_CACHE", "/dev/null/cache")
    path, sha256 = staged(gcs)
    with caplog.at_level(logging.WARNING):
        for _ in range(2):
            assert hashlib.sha256(open_artifact(path, sha256).content).hexdigest() == sha256
    assert len([record for record in caplog.records if "BEAMLABEL_CACHE" in record.message]) == 1


def test_a_local_artifact_is_opened_in_place(own_cache, tmp_path):
    (tmp_path / "module").write_bytes(b"local")
    content, path = open_artifact(str(tmp_path / "module"), hashlib.sha256(b"local").hexdigest())
    assert isinstance(content, mmap.mmap) and bytes(content) == b"local"
    assert path == tmp_path / "module"
    assert not own_cache.exists()
    with pytest.raises(ChecksumError, match="cut short"):
        open_artifact(str(tmp_path / "module"), "0" * 64)


@pytest.mark.long
def test_the_job_runs_without_the_hub(gcs, tmp_path, own_cache, monkeypatch):
    """The hub's server and the launcher's cache disappear after the launch; two processes fetch one artifact."""
    hub = FileServer()
    hub.files["/tiny/1"] = Path(TINY).read_bytes()
    uris = uri_list(tmp_path / "list.txt", photos(tmp_path / "photos", 20))
    output = f"{gcs.url}/out"
    job = prepared("--module", hub.url_of("/tiny/1"), "--input", uris, "--output", output)
    assert hub.count("/tiny/1") == 1
    hub.close()
    monkeypatch.setenv("BEAMLABEL_CACHE", str(tmp_path / "host"))
    processes = choose(["--direct_running_mode=multi_processing", "--direct_num_workers=2"])
    with cancellation() as cancelled:
        execute(job, processes, cancelled)
    manifest = publish(job.output, job.staging_dir)
    assert manifest["rows"]["predicted"] == 20
    assert manifest["metrics"]["beamlabel.RunInference"]["load_model_latency_milli_secs"]["count"] == 2
    assert gcs.server.count("GET", "module.beamlabel") == 1
    assert storage.exists(f"{output}/_SUCCESS")
