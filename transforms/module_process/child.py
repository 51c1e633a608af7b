"""The process that loads a module; ``process`` starts this file.

It reads lines of JSON from standard input: first its settings, then one task per line: the name of a function and its
arguments. It answers in lines of JSON on a separate descriptor: log records, then the result or the error. Output that
a module prints goes to standard error.
"""

from __future__ import annotations

import importlib
import json
import logging
import os
import signal
import sys
import threading
import traceback
from contextlib import suppress
from pathlib import Path
from typing import Any, NoReturn, TextIO

# From prctl(2): the kernel sends the signal when the thread that started this process ends. That thread waits for it.
_PR_SET_PDEATHSIG = 1
# If memory runs out, Linux kills this process and not the launcher (proc_pid_oom_score_adj(5)).
_OOM_FIRST = "1000"


def main() -> NoReturn:
    """Runs tasks until the launcher closes the pipe or ends this process."""
    # A service manager sends these signals to all processes of a group; the launcher decides how to react.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    told = _told()
    if told is None:
        os._exit(1)
    sys.path[:] = told["path"]  # without this file's directory
    _end_with(told["launcher"])
    limit(told["memory"])
    os.set_inheritable(told["answers"], False)
    _print_to_stderr()
    answers = _Answers(os.fdopen(told["answers"], "w", encoding="utf-8", errors="backslashreplace"))
    root = logging.getLogger()
    root.addHandler(answers)
    root.setLevel(logging.WARNING)
    _configure(told)
    while (task := _told()) is not None:
        answers.answer(task["function"], task["arguments"])
    os._exit(0)


def limit(memory: int | None) -> None:
    """Limits this process's resources; see ``Limits``."""
    with suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text(_OOM_FIRST)
    try:
        import resource
    except ImportError:  # not a Unix
        return
    with suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if memory is not None:
        with suppress(OSError, ValueError):  # the current limit is lower
            resource.setrlimit(resource.RLIMIT_DATA, (memory, memory))


class _Answers(logging.Handler):
    """Sends log records, results and errors to the launcher."""

    def __init__(self, file: TextIO) -> None:
        super().__init__()
        self._file, self._file_lock = file, threading.Lock()

    def emit(self, record: logging.LogRecord) -> None:
        self._say(log=[record.name, record.levelno, record.getMessage()])

    def answer(self, function: str, arguments: dict[str, Any]) -> None:
        """Runs a task."""
        try:
            module, _, name = function.partition(":")
            result = getattr(importlib.import_module(module), name)(**arguments)
        except BaseException as error:  # the launcher handles it
            kinds = [kind.__name__ for kind in type(error).__mro__]
            self._say(error={"kinds": kinds, "message": str(error), "traceback": traceback.format_exc()})
        else:
            self._say(result=result)

    def _say(self, **words: Any) -> None:
        with self._file_lock:
            self._file.write(json.dumps(words) + "\n")
            self._file.flush()


def _told() -> dict[str, Any] | None:
    """The launcher's next line; None if the launcher is gone."""
    line = sys.stdin.readline()
    return json.loads(line) if line.endswith("\n") else None


def _end_with(launcher: int) -> None:
    """Makes the kernel end this process with the launcher, even if the launcher is killed."""
    with suppress(OSError, AttributeError, ImportError):  # not Linux: it ends when it next reads a task
        import ctypes

        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != launcher:
        os._exit(1)  # the launcher was already gone


def _print_to_stderr() -> None:
    try:
        os.dup2(2, 1)
    except OSError:  # the launcher has no standard error
        nothing = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nothing, 1)
        os.dup2(nothing, 2)


def _configure(told: dict[str, Any]) -> None:
    from beamlabel.transforms.secrets.logs import get_logger, make_public
    from beamlabel.transforms.storage import beam_setup
    from beamlabel.transforms.storage.billing import set_billing_project
    from beamlabel.transforms.worker.keras_extras import leave_out_keras_extras
    from beamlabel.transforms.worker.native_stderr import leave_native_lines

    make_public()
    leave_out_keras_extras()
    leave_native_lines()
    get_logger("beamlabel").setLevel(logging.INFO)
    beam_setup.configure(told["storage"])
    set_billing_project(told["billing_project"])


if __name__ == "__main__":
    main()
