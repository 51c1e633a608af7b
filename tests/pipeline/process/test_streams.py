"""Standard streams that are closed, full or unread: the exit code is correct, and work is complete or not begun."""

import os
import subprocess
import sys

import pytest

from support.jobs import TINY, photos, uri_list
from support.paths import ROOT

pytestmark = pytest.mark.slow


def shell(words, redirection, cwd):
    """The exit code and the output on the streams that are not redirected."""
    script = f'"$@" {redirection}'
    done = subprocess.run(
        ["bash", "-c", script, "bash", sys.executable, "-m", "beamlabel", *map(str, words)],
        capture_output=True, text=True, cwd=cwd, env={**os.environ, "PYTHONPATH": str(ROOT)}, check=False,
    )  # fmt: skip
    assert "Traceback" not in done.stderr and "Exception ignored" not in done.stderr
    return done.returncode, done.stdout, done.stderr


@pytest.mark.parametrize(
    ("words", "redirection", "code", "said"),
    [
        (["--version"], ">&-", 2, "stdout is closed"),
        (["--help"], ">/dev/full", 3, "No space left"),
        (["verify", "--help"], ">/dev/full", 3, "No space left"),
        (["--version"], "<&- 2>&-", 0, ""),
        (["verify", "{}"], ">&-", 2, "stdout is closed"),
        (["verify", "{}"], ">/dev/full", 3, "No space left"),
        (["diff", "{}", "{}"], "> >(exec true; sleep 1)", None, ""),
        (["evaluate", "{}", "--truth", "parent"], ">&-", 2, "stdout is closed"),
        (["inspect", "{}"], ">/dev/full", 3, "No space left"),
        (["verify", "{}"], "2>&-", 2, ""),
        (["verify", "{}"], "2>/dev/full", 2, ""),
        (["verify", "{}"], ">&- 2>&- <&-", 2, ""),
        (["publish", "{}"], ">&- <&-", 2, "no run of beamlabel found there"),
        (["report", "{}"], ">/dev/full 2>&-", 2, ""),
        (["--frobnicate"], "2>&-", 2, ""),
    ],
)
def test_commands(words, redirection, code, said, tmp_path):
    words = [word.format(tmp_path / "nothing") for word in words]
    got, stdout, stderr = shell(words, redirection, tmp_path)
    assert got == code or (code is None and got in (2, 141)), stderr
    assert said in stderr
    if "stdout" in said or "No space" in said:
        assert not stdout and len(stderr.splitlines()) == 1


def test_a_reader_that_is_gone_is_noticed_before_any_work(tmp_path):
    read, write = os.pipe()
    os.close(read)
    argv = [sys.executable, "-m", "beamlabel", "inspect", TINY]
    env = {**os.environ, "PYTHONPATH": str(ROOT), "BEAMLABEL_CACHE": str(tmp_path / "cache")}
    done = subprocess.run(argv, stdout=write, stderr=subprocess.PIPE, text=True, check=False, env=env)
    os.close(write)
    assert done.returncode == 141
    assert done.stderr == "beamlabel inspect: stdout has no reader\n"
    assert not (tmp_path / "cache").exists()


@pytest.mark.parametrize("redirection", [">&- 2>&- <&-", "2>/dev/full"])
def test_a_job_is_done_though_nobody_hears_of_it(redirection, tmp_path):
    uris = uri_list(tmp_path / "list.txt", photos(tmp_path / "photos", 2))
    words = ["--input", uris, "--module", TINY, "--output", tmp_path / "out", "--report"]
    assert shell(words, redirection, tmp_path)[0] == 0
    assert (tmp_path / "out" / "_SUCCESS").exists()
    done = subprocess.run(
        [sys.executable, "-m", "beamlabel", "verify", tmp_path / "out"],
        check=False,
        cwd=ROOT,
        capture_output=True,
    )
    assert done.returncode == 0  # no message went into a file
