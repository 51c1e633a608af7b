"""Output on a terminal and in a log: a cold cache, Ctrl-C once and twice."""

import os
import re
import shlex
import signal
import subprocess
import sys
import time

import pytest

from beamlabel.pipeline.options.resume_command import resume_command
from beamlabel.pipeline.process.terminal import _line
from beamlabel.transforms.secrets.text import public_text
from support import hangs
from support.hangs import Launcher
from support.jobs import TINY, command, photos, uri_list
from support.staged import staged_files
from support.terminals import CTRL_C, on_terminal


@pytest.fixture
def uris(tmp_path):
    return uri_list(tmp_path / "list.txt", photos(tmp_path / "photos", 4))


def job(tmp_path, uris, *words):
    return ["--input", str(uris), "--module", TINY, "--output", str(tmp_path / "out"), *words]


def cold(tmp_path):
    return {**os.environ, "BEAMLABEL_CACHE": str(tmp_path / "cold")}


NATIVE = re.compile(r"XNNPACK|cudart|absl|oneDNN|[IWE]0000 ")


def test_a_cold_cache_on_a_terminal(tmp_path, uris):
    argv = [sys.executable, "-m", "beamlabel", *job(tmp_path, uris)]
    code, shown = on_terminal(argv, environment=cold(tmp_path), columns=200)
    assert code == 0, shown
    text = f"Compiling the module (once; cached in {tmp_path / 'cold'})"
    times = re.findall(re.escape(text) + r" . (\d+:\d\d)\r", shown)
    assert "0:00" in times and "0:01" in times, shown
    assert re.search(r"\r +\rINFO beamlabel: Compiled the module in \d+\.\d s\r\n", shown), shown
    assert not NATIVE.search(shown), shown


def test_a_cold_cache_in_a_log(tmp_path, uris):
    done = command(*job(tmp_path, uris), env=cold(tmp_path))
    assert done.returncode == 0, done.stderr
    lines = done.stderr.splitlines()
    assert [line for line in lines if "Compil" in line] == [
        f"INFO beamlabel: Compiling the module (once; cached in {tmp_path / 'cold'})",
        next(
            line for line in lines if re.fullmatch(r"INFO beamlabel: Compiled the module in \d+\.\d s", line)
        ),
    ]
    assert all(line.startswith("INFO beamlabel") for line in lines), done.stderr


def test_a_line_of_a_wait_fits_the_terminal():
    line = _line("Compiling the module (once; cached in /" + "x" * 300 + ")", 75.0, "|")
    assert line.endswith("... | 1:15")
    assert len(line) <= 80


def test_ctrl_c_names_the_command_that_resumes(tmp_path):
    many = uri_list(tmp_path / "list.txt", [str(path) for path in photos(tmp_path / "photos", 50)] * 400)
    words = [
        sys.executable,
        "-m",
        "beamlabel",
        *job(tmp_path, many),
        "--max-error-rate",
        "1",
        "--shard_rows",
        "100",
    ]
    code, shown = on_terminal(words, keys=[("failed=0", CTRL_C)])
    assert code == 130, shown
    *_, first, last = shown.rstrip().split("\r\n")
    assert first.endswith("ERROR beamlabel: Cancelled by SIGINT"), shown
    assert "Traceback" not in shown
    resumes = last.removeprefix("INFO beamlabel: To continue, run: ")
    assert shlex.split(resumes)[-2:] == ["--if_exists", "resume"]
    assert staged_files(tmp_path, "*")
    done = subprocess.run(shlex.split(resumes), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "20000 input = 20000 predicted" in done.stderr


@pytest.mark.parametrize("is_told", [False, True])
def test_a_second_ctrl_c_ends_native_code_at_once(tmp_path, uris, monkeypatch, is_told):
    monkeypatch.setattr(hangs, "GRACE", 60.0)
    launcher = Launcher(job(tmp_path, uris), tmp_path / "marker", "beamlabel.pipeline.job.plan:_plan_id")
    child = launcher.wait_for_hang()
    launcher.process.send_signal(signal.SIGINT)
    time.sleep(2.0 if is_told else 0.5)
    begin = time.monotonic()
    said = launcher.ended_by(signal.SIGINT)
    assert time.monotonic() - begin < 30
    assert ("press Ctrl-C again to end at once" in said) == is_told
    assert "ended at once by a second Ctrl-C" in said
    assert "--if_exists resume" in said
    assert not hangs.is_running(child)


CALL = """
import socket, sys
import grpc
from beamlabel.pipeline.process import watchdog
from beamlabel.pipeline.process.cancellation import Cancelled, cancellation
watchdog.GRACE_SECONDS = 60.0
server = socket.create_server(("localhost", 0))
channel = grpc.insecure_channel(f"localhost:{server.getsockname()[1]}")
def call():
    channel.unary_unary("/a/b")(b"", wait_for_ready=True)
with cancellation():
    try:
        print("calling", flush=True)
        call()
    except Cancelled:
        print("cancelling", flush=True)
        call()
"""


def test_a_second_ctrl_c_ends_a_call_without_a_deadline():
    process = subprocess.Popen(
        [sys.executable, "-c", CALL], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    try:
        assert process.stdout.readline() == "calling\n"
        time.sleep(0.5)
        process.send_signal(signal.SIGINT)
        time.sleep(1.0)
        process.send_signal(signal.SIGINT)
        said = process.communicate(timeout=60)[0]
    finally:
        process.kill()
    assert process.returncode == 130, said
    assert "second Ctrl-C" in said


def test_a_ctrl_c_that_is_sent_twice_by_a_wrapper_is_one(tmp_path, uris):
    program = (
        "import os, signal\n"
        "from beamlabel.pipeline.process.cancellation import Cancelled, cancellation\n"
        "with cancellation():\n"
        "    try:\n"
        "        os.kill(os.getpid(), signal.SIGINT)\n"
        "    except Cancelled:\n"
        "        os.kill(os.getpid(), signal.SIGINT)\n"
        "        import time; time.sleep(1)\n"
        "        print('cleaned up')\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "cleaned up\n"), done.stderr


def test_the_command_that_resumes_holds_no_secrets():
    argv = [
        "beamlabel", "--input", "https://user:s3cret@example.org/l?token=s3cret", "--if-exists", "overwrite",
        "--http-header", "Authorization=s3cret", "X=s3cret", "--s3_secret_access_key=s3cret", "--s3_access_key_id",
        "s3cret", "--azure_connection_string", "AccountKey=s3cret", "--output", "out/{date}", "--report",
    ]  # fmt: skip
    told = resume_command(argv, "2026-01-31")
    assert "s3cret" not in told
    assert told == (
        "beamlabel --input 'https://...example.org/l?...' --http_header Authorization=... X=... "
        "--s3_secret_access_key=... --s3_access_key_id ... --azure_connection_string ... --output 'out/{date}' "
        "--report --run_date 2026-01-31 --if_exists resume"
    )
    assert "--run_date" not in resume_command(["beamlabel", "--output", "out"], "2026-01-31")


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("https://h.example/m.tar.gz?token=s3cret", "'https://h.example/m.tar.gz?...'"),
        ("https://h.example/m.tar.gz?size=3&token=s3cret&v=1", "'https://h.example/m.tar.gz?size=3&...v=1'"),
        ("https://h.example/m.tar.gz?size=3", "'https://h.example/m.tar.gz?size=3'"),
        ("https://h.example/" + "m" * 5000 + "?token=s3cret", "https://h.example/" + "m" * 5000 + "..."),
    ],
)
def test_the_command_that_resumes_marks_each_secret_of_a_url(url, shown):
    command = resume_command(["beamlabel", "--module", url])
    assert command == f"beamlabel --module {shown} --if_exists resume"
    assert public_text(command) == command  # the log must not remove the mark


@pytest.mark.parametrize(
    ("words", "shown"),
    [
        (['--environment_config={"command": "c", "env": {"KEY": "s3cret"}}'], "--environment_config=..."),
        (["--environment-option", "process_variables=KEY=s3cret"], "--environment_option ..."),
        (["--environment_config", "localhost:50000"], "--environment_config localhost:50000"),
    ],
)
def test_the_command_that_resumes_holds_no_variables_of_workers(words, shown):
    assert resume_command(["beamlabel", *words]) == f"beamlabel {shown} --if_exists resume"
