"""Startup lines of native libraries on stderr are hidden from the user; errors are shown."""

import logging
import os
import subprocess
import sys
import time

import pytest

from beamlabel.pipeline.process import watchdog
from beamlabel.transforms.module_process import waits
from beamlabel.transforms.module_process.native_lines import NativeLines
from beamlabel.transforms.module_process.process import Child
from beamlabel.transforms.worker import once
from beamlabel.transforms.worker.native_stderr import is_native, without_native_lines
from beamlabel.transforms.worker.once import is_repeated, warn_once

NATIVE = [
    "WARNING: All log messages before absl::InitializeLog() is called are written to STDERR",
    "I0000 00:00:1795983965.360595   16532 cudart_stub.cc:31] Could not find cuda drivers on your machine",
    "W0000 00:00:1795984691.199133    9995 tf_tfl_flatbuffer_helpers.cc:367] Ignored drop_control_dependency.",
    "E0000 00:00:1795984691.199133    9995 cuda_dnn.cc:8579] Unable to register cuDNN factory",
    "2026-11-29 20:00:00.123456: I tensorflow/core/util/port.cc:153] oneDNN custom operations are on.",
    "To enable the following instructions: AVX2 FMA, in other operations, rebuild TensorFlow",
    "INFO: Created TensorFlow Lite XNNPACK delegate for CPU.",
]
OTHERS = [
    "F0000 00:00:1795984691.199133    9995 port.cc:17] The TensorFlow library was compiled to use AVX instructions",
    "2026-11-29 20:00:00.123456: F tensorflow/core/platform/cpu_feature_guard.cc:37] was compiled to use AVX",
    "terminate called after throwing an instance of 'std::bad_alloc'",
    "INFO beamlabel: 8 input",
    "Traceback (most recent call last):",
    "",
]


@pytest.mark.parametrize("line", NATIVE)
def test_lines_of_native_logs(line):
    assert is_native(line)


@pytest.mark.parametrize("line", OTHERS)
def test_other_lines(line):
    assert not is_native(line)


def test_errors_may_count_as_others():
    assert [line for line in NATIVE if not is_native(line, errors=False)] == [NATIVE[3]]


def test_a_child_shows_other_lines_and_the_native_ones_if_it_dies(capsys, caplog):
    caplog.set_level(logging.DEBUG, "beamlabel.native")
    lines = NativeLines()
    text = "\n".join([NATIVE[0], "an error", NATIVE[1]]) + "\nno end of line"
    child = subprocess.Popen(
        [sys.executable, "-c", f"import os; os.write(2, {text.encode()!r})"], stderr=lines.descriptor
    )
    lines.close_descriptor()
    assert child.wait() == 0
    lines._thread.join(60)
    assert capsys.readouterr().err == "an error\nno end of line\n"
    assert [record.message for record in caplog.records] == NATIVE[:2]
    lines.replay(10)
    assert capsys.readouterr().err == "\n".join(NATIVE[:2]) + "\n"


def test_litert_starts_in_silence():
    program = (
        "import os, threading\n"
        "from ai_edge_litert.interpreter import Interpreter\n"
        "from beamlabel.transforms.inference import litert_start\n"
        "real = Interpreter.allocate_tensors\n"
        "def allocate(self):\n"
        "    os.write(2, b'an error of a thread\\n')\n"
        "    real(self)\n"
        "Interpreter.allocate_tensors = allocate\n"
        "litert_start.start(Interpreter)\n"
        "litert_start.start(Interpreter)\n"
        "os.write(2, b'after\\n')\n"
        "real(Interpreter(model_content=litert_start._model()))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False, env=dict(os.environ)
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == "an error of a thread\nafter\n"


@pytest.mark.parametrize("fails", [False, True])
def test_a_library_starts_in_silence_unless_it_fails(fails, capfd):
    lines = "".join(f"{line}\n" for line in [NATIVE[0], "an error", NATIVE[1]])
    try:
        with without_native_lines():
            os.write(2, lines.encode())
            if fails:
                raise ValueError
    except ValueError:
        pass
    assert capfd.readouterr().err == (lines if fails else "an error\n")


def test_two_threads_that_start_libraries_give_stderr_back(capfd):
    one, other = without_native_lines(), without_native_lines()
    one.__enter__()
    other.__enter__()
    one.__exit__(None, None, None)
    other.__exit__(None, None, None)
    os.write(2, b"after\n")
    assert capfd.readouterr().err == "after\n"


def test_the_last_line_of_a_process_appears_while_a_library_starts(capfd):
    with without_native_lines():
        watchdog._say("ended by SIGTERM")
        assert capfd.readouterr().err == "beamlabel: ended by SIGTERM\n"


def test_the_output_of_a_process_that_is_ended_is_shown_first(capsys, monkeypatch):
    real = NativeLines._take

    def slow(lines, data):
        time.sleep(0.3)
        real(lines, data)

    monkeypatch.setattr(NativeLines, "_take", slow)
    child = Child(2 << 30)
    child.tell(function="builtins:print", arguments={"end": "a word of the module\n", "flush": True})
    assert child.hear(time.monotonic() + 60) == {"result": None}
    child.kill()
    assert capsys.readouterr().err == "a word of the module\n"


def test_a_wait_is_announced_at_its_begin_and_at_its_end(caplog):
    caplog.set_level(logging.INFO, "beamlabel")
    with waits.wait("Compiling", "Compiled"):
        assert [record.message for record in caplog.records] == ["Compiling"]
    assert caplog.records[1].message.startswith("Compiled in 0.")
    with pytest.raises(ValueError, match="no"), waits.wait("Compiling", "Compiled"):
        raise ValueError("no")
    assert len(caplog.records) == 3


def test_a_warning_of_two_processes_is_shown_once(caplog, monkeypatch):
    monkeypatch.setattr(once, "_said", set())
    logger = logging.getLogger("beamlabel")
    warn_once(logger, "no units")
    warn_once(logger, "no units")
    assert [record.message for record in caplog.records] == ["no units"]
    assert is_repeated("WARNING beamlabel: no units\n") and not is_repeated("other")
    assert not is_repeated("ERROR beamlabel: no units\n")


@pytest.mark.parametrize("text", ["", "a", "failed"])
def test_a_short_warning_hides_no_other_line(monkeypatch, text):
    monkeypatch.setattr(once, "_said", set())
    warn_once(logging.getLogger("beamlabel"), text)
    for line in (
        "a worker process: OSError: it failed\n",
        "WARNING beamlabel: it failed at a\n",
        "Traceback:\n",
    ):
        assert not is_repeated(line)
