"""One program: all commands are found, mistyped ones get a hint, ``--help`` is fast, and all end alike."""

import os
import re
import signal
import subprocess
import sys
import time

import pytest

from beamlabel.pipeline.options.command_table import COMMANDS
from support.jobs import TINY, command


def test_help_lists_the_commands():
    shown = command("--help").stdout
    for name, one in COMMANDS.items():
        assert re.search(rf"^  {name} +{re.escape(one.help)}$", shown, re.MULTILINE)


@pytest.mark.parametrize("name", COMMANDS)
def test_help_imports_nothing_heavy_and_tells_the_exit_codes(name):
    program = (
        "import atexit, sys\n"
        "from beamlabel.pipeline.__main__ import console\n"
        f"sys.argv = ['beamlabel', {name!r}, '--help']\n"
        "atexit.register(lambda: print(*sys.modules, file=sys.stderr))\n"
        "console()"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0
    assert done.stdout.startswith(f"usage: beamlabel {name}")
    assert "Exit codes: 0" in " ".join(done.stdout.split())
    imported = set(done.stderr.split())
    assert COMMANDS[name].module in imported
    assert not imported & {"apache_beam", "pyarrow", "tensorflow", "pandas", "cv2", "google.cloud.storage"}


@pytest.mark.parametrize("name", COMMANDS)
def test_a_missing_argument_is_a_usage_error_that_names_the_commands_help(name):
    done = command(name)
    assert done.returncode == 2
    assert "the following arguments are required" in done.stderr
    assert f"Try 'beamlabel {name} --help'" in done.stderr


@pytest.mark.parametrize(
    ("typed", "meant"),
    [("verfy", "verify"), ("inspct", "inspect"), ("evalute", "evaluate"), ("Fetch", "fetch")],
)
def test_a_mistyped_command_gets_the_nearest_name(typed, meant):
    done = command(typed, "out")
    assert done.returncode == 2
    assert f"'{typed}' is not a command; did you mean {meant}?" in done.stderr


def test_an_unlike_word_gets_all_commands():
    done = command("gs://photos/")
    assert done.returncode == 2
    assert f"the commands are {', '.join(COMMANDS)}" in done.stderr
    assert "use --input without a command" in done.stderr


def test_an_option_that_a_command_does_not_have_is_a_usage_error():
    done = command("verify", "out", "--quik")
    assert done.returncode == 2
    assert "--quik" in done.stderr


def test_a_broken_job_ends_with_3(gcs):
    gcs.server.fail_next(99, 400, method="POST")
    done = command("fetch", TINY, gcs.uri("tiny"))
    assert done.returncode == 3
    assert "fetch failed: " in done.stderr


@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_a_command(gcs, sent):
    gcs.server.delay(600)
    argv = [sys.executable, "-m", "beamlabel", "fetch", TINY, gcs.uri("tiny")]
    process = subprocess.Popen(argv, stderr=subprocess.PIPE, text=True)
    while not gcs.server.count() and process.poll() is None:
        time.sleep(0.05)
    process.send_signal(sent)
    _, stderr = process.communicate(timeout=60)
    gcs.server.delay(0)
    assert process.returncode == 128 + sent, stderr
    assert "Traceback" not in stderr


def test_a_reader_that_has_seen_enough_is_no_fault(tmp_path):
    """The reader closes the pipe, as in ``beamlabel … | head -1``."""
    (tmp_path / "_MANIFEST.json").write_text("[]")
    read, write = os.pipe()
    os.close(read)
    argv = [sys.executable, "-m", "beamlabel", "verify", str(tmp_path)]
    done = subprocess.run(argv, stdout=write, stderr=subprocess.PIPE, text=True, check=False)
    os.close(write)
    assert done.returncode == 128 + signal.SIGPIPE
    assert "Traceback" not in done.stderr
