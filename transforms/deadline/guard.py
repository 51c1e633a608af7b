"""The process that ends a hanging worker process; ``watchdog`` starts this file.

It runs outside the worker because native code that hangs may hold Python's lock, which blocks all of the worker's
threads.

The worker sends lines of JSON: a batch begins, its deadline, the batch ended. If a batch is late, this process
records its images in the staging directory and asks the worker to exit. If the worker does not exit, this process
kills it. A worker process other than the launcher also sends a sign of life at intervals. If it is silent for long
between two batches, it was stopped or hangs with Python's lock, so it is killed, too. This process exits when the
worker does.
"""

from __future__ import annotations

import json
import os
import select
import signal
import sys
import threading
import time
from contextlib import suppress
from typing import Any, NoReturn

# The time to record the batch's images; the storage may hang, too.
_TELL_SECONDS = 30.0
# The time for the worker to log and exit.
_END_SECONDS = 3.0
# If this process wakes so much later, it was stopped, as in a paused container, and so was the worker.
_OVERSLEPT_SECONDS = 5.0
_READ_BYTES = 1 << 16


class Guard:
    """Watches the process that started it.

    Args:
      told: the process id of the worker, and its import path.
    """

    def __init__(self, told: dict[str, Any]) -> None:
        self._told = told
        self._unread = b""
        # By directory: how to reach its storage.
        self._directories: dict[str, dict[str, Any]] = {}
        # Unfinished batches and their deadlines, by batch number.
        self._batches: dict[int, dict[str, Any]] = {}
        self._until: dict[int, float] = {}
        # The longest permitted silence of the worker and its next deadline; infinite if the worker sends no signs of
        # life.
        self._silence = float("inf")
        self._silent_until = float("inf")

    def watch(self) -> None:
        """Runs until the worker has exited."""
        while True:
            late = [number for number, until in self._until.items() if until <= time.monotonic()]
            if late:
                self._end(late)
            elif not self._until and self._silent_until <= time.monotonic():
                self._end_silent()
            until = min(self._until.values(), default=self._silent_until)
            self._listen(None if until == float("inf") else until)

    def _listen(self, until: float | None) -> None:
        """Reads the worker's messages; returns at the given time at the latest."""
        begin = time.monotonic()
        left = None if until is None else max(0.0, until - begin)
        if not select.select([0], [], [], left)[0]:
            overslept = time.monotonic() - begin - (left or 0.0)
            if overslept > _OVERSLEPT_SECONDS:
                self._postpone(overslept)
            return
        read = os.read(0, _READ_BYTES)
        if not read:
            os._exit(0)
        self._silent_until = time.monotonic() + self._silence
        *lines, self._unread = (self._unread + read).split(b"\n")
        for line in lines:
            word = json.loads(line)
            if "silence" in word:
                self._silence = word["silence"]
                self._silent_until = time.monotonic() + self._silence
            elif "storage" in word:
                self._directories[word["directory"]] = word
            elif "seconds" in word:
                self._batches[word["batch"]] = word
                self._until[word["batch"]] = time.monotonic() + word["seconds"]
            else:
                self._batches.pop(word["batch"], None)
                self._until.pop(word["batch"], None)

    def _postpone(self, seconds: float) -> None:
        self._silent_until += seconds
        self._until = {number: until + seconds for number, until in self._until.items()}

    def _end(self, late: list[int]) -> None:
        self._remember([self._batches[number] for number in late])
        if not any(number in self._until for number in late):
            return  # the batches ended meanwhile; the record does no harm
        with suppress(OSError):
            os.write(1, json.dumps({"seconds": self._batches[late[0]]["seconds"]}).encode() + b"\n")
        end = time.monotonic() + _END_SECONDS
        while time.monotonic() < end:
            self._listen(end)
        self._kill()

    def _end_silent(self) -> None:
        if _is_stopped(_parent(self._told["worker"])):
            # Ctrl-Z: the launcher and its workers will continue together.
            self._silent_until = time.monotonic() + self._silence
            return
        sys.stderr.write(f"beamlabel: ending a worker process that was silent for {self._silence:g} s\n")
        sys.stderr.flush()
        self._kill()

    def _kill(self) -> None:
        # SIGALRM ends a process that does not handle it. Unlike SIGKILL, it cannot be mistaken for Linux's OOM
        # killer.
        for number in (signal.SIGALRM, signal.SIGKILL):
            if os.getppid() == self._told["worker"]:
                with suppress(OSError):
                    os.kill(self._told["worker"], number)
            time.sleep(1)
        os._exit(0)

    def _remember(self, batches: list[dict[str, Any]]) -> None:
        teller = threading.Thread(target=self._tell, args=(batches,), daemon=True)
        teller.start()
        end = time.monotonic() + _TELL_SECONDS
        while teller.is_alive() and time.monotonic() < end:
            self._listen(time.monotonic() + 0.05)

    def _tell(self, batches: list[dict[str, Any]]) -> None:
        sys.path[:] = self._told["path"]
        from beamlabel.transforms.secrets.say import say

        try:
            from beamlabel.transforms.deadline import timeouts
            from beamlabel.transforms.storage import beam_setup
            from beamlabel.transforms.storage.billing import set_billing_project

            for batch in batches:
                directory = self._directories[batch["directory"]]
                beam_setup.configure(directory["storage"])
                set_billing_project(directory["billing_project"])
                for unit_id, ref_ids in batch["units"].items():
                    timeouts.tell(batch["directory"], unit_id, ref_ids, batch["seconds"])
        except Exception as error:
            say(f"beamlabel: could not record which batch hung: {error}")


def _parent(process: int) -> int:
    """The process id of its parent; 0 if the system does not report it."""
    fields = _status(process)
    return int(fields[1]) if fields else 0


def _is_stopped(process: int) -> bool:
    return _status(process)[:1] == ["T"]


def _status(process: int) -> list[str]:
    """The fields of ``/proc/PID/stat``, starting with the state."""
    try:
        with open(f"/proc/{process}/stat", encoding="utf-8", errors="replace") as file:  # noqa: PTH123 (small)
            return file.read().rpartition(")")[2].split()
    except OSError:
        return []


def main() -> NoReturn:
    """Watches until the worker has exited."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    told = b""
    while not told.endswith(b"\n"):
        read = os.read(0, 1)
        if not read:
            os._exit(0)
        told += read
    Guard(json.loads(told)).watch()
    os._exit(0)


if __name__ == "__main__":
    main()
