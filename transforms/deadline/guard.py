"""The process that ends a worker process which hangs, started as a file by ``watchdog``.

It stands outside, since native code that hangs may hold Python's lock, and then no thread of the worker does anything.
The worker tells in lines of JSON when a batch begins, until when it should end, and that it has ended. If one has not,
this process remembers in the staging folder what was in it, and asks the worker to end itself; if that does not, it
ends it. A worker that is nobody's launcher also says from time to time that it is there: one that is silent for long
between two batches is stopped, or hangs with Python's lock, and is ended, too. When the worker is gone, so is this
process.
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

# To remember what was in the batch, on a storage that may hang, too.
_TELL_SECONDS = 30.0
# For the worker to say something and end.
_END_SECONDS = 3.0
# A process that wakes so much later was stopped, as in a container that is paused, and so was the worker.
_OVERSLEPT_SECONDS = 5.0
_READ_BYTES = 1 << 16


class Guard:
    """Watches the process that has started it.

    Args:
      told: who that is, and where it imports from.
    """

    def __init__(self, told: dict[str, Any]) -> None:
        self._told = told
        self._unread = b""
        # By folder: how its storage is reached.
        self._folders: dict[str, dict[str, Any]] = {}
        # Batches that have begun and not ended, by their numbers; and until when they may last.
        self._batches: dict[int, dict[str, Any]] = {}
        self._until: dict[int, float] = {}
        # How long the worker may be silent, and until when it may be now; nothing, if it does not tell.
        self._silence = float("inf")
        self._silent_until = float("inf")

    def watch(self) -> None:
        """Until the worker is gone."""
        while True:
            late = [number for number, until in self._until.items() if until <= time.monotonic()]
            if late:
                self._end(late)
            elif not self._until and self._silent_until <= time.monotonic():
                self._end_silent()
            until = min(self._until.values(), default=self._silent_until)
            self._listen(None if until == float("inf") else until)

    def _listen(self, until: float | None) -> None:
        """Hears what the worker says, if it says anything before that time."""
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
                self._folders[word["folder"]] = word
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
            return  # they have ended meanwhile: what is remembered of them does no harm
        with suppress(OSError):
            os.write(1, json.dumps({"seconds": self._batches[late[0]]["seconds"]}).encode() + b"\n")
        end = time.monotonic() + _END_SECONDS
        while time.monotonic() < end:
            self._listen(end)
        self._kill()

    def _end_silent(self) -> None:
        if _is_stopped(_parent(self._told["worker"])):
            # Ctrl-Z: the launcher and its workers will go on together.
            self._silent_until = time.monotonic() + self._silence
            return
        sys.stderr.write(f"beamlabel: a worker process was silent for {self._silence:g} s, and is ended\n")
        sys.stderr.flush()
        self._kill()

    def _kill(self) -> None:
        # SIGALRM ends a process that does not handle it, and says more than SIGKILL, which Linux sends, too.
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
                folder = self._folders[batch["folder"]]
                beam_setup.configure(folder["storage"])
                set_billing_project(folder["billing_project"])
                for unit_id, ref_ids in batch["units"].items():
                    timeouts.tell(batch["folder"], unit_id, ref_ids, batch["seconds"])
        except Exception as error:
            say(f"beamlabel: it is not remembered which batch hung: {error}")


def _parent(process: int) -> int:
    """Its number; 0, if the system does not tell."""
    fields = _status(process)
    return int(fields[1]) if fields else 0


def _is_stopped(process: int) -> bool:
    return _status(process)[:1] == ["T"]


def _status(process: int) -> list[str]:
    """The fields of ``/proc/PID/stat`` from the state on."""
    try:
        with open(f"/proc/{process}/stat", encoding="utf-8", errors="replace") as file:  # noqa: PTH123 (small)
            return file.read().rpartition(")")[2].split()
    except OSError:
        return []


def main() -> NoReturn:
    """Watches until the worker is gone."""
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
