"""Ctrl-C in a command: one line, no traceback, and the exit code of the signal."""

import subprocess
import sys

import pytest

PROGRAM = """
import os, signal, sys
from beamlabel.pipeline.commands import dispatch
from beamlabel.pipeline.options.command_table import COMMANDS
import importlib

def interrupted(argv):
    try:
        os.kill(os.getpid(), signal.SIGINT)
    except BaseException:
        if {wrapped}:
            raise RuntimeError("a library lost the signal")
        raise

importlib.import_module(COMMANDS[sys.argv[1]].module).main = interrupted
dispatch.run_command(sys.argv[1], [])
"""


@pytest.mark.parametrize("wrapped", [False, True])
@pytest.mark.parametrize("command", ["inspect", "fetch", "verify", "report", "diff"])
def test_ctrl_c_says_one_line(command, wrapped):
    program = PROGRAM.format(wrapped=wrapped)
    done = subprocess.run(
        [sys.executable, "-c", program, command], capture_output=True, text=True, check=False
    )
    assert done.returncode == 130
    assert len(done.stderr.splitlines()) == 1 and "SIGINT" in done.stderr
    assert not done.stdout
