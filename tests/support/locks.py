"""Locks of outputs: their content, their age in a bucket, and processes that hold them."""

import dataclasses
import subprocess
import sys
from datetime import datetime, timedelta, timezone
from pathlib import Path

from beamlabel.pipeline.output.holder import describe
from beamlabel.pipeline.process.process_id import ProcessId
from support.gcs_server import Bucket

HOLD = """
import sys, time
from beamlabel.pipeline.output.lock import locked
with locked(sys.argv[1]):
    print("held", flush=True)
    time.sleep(60)
"""


def start_holder(output: str | Path) -> "subprocess.Popen[bytes]":
    """Starts a process, waits until it holds an output's lock, and returns it; the caller kills it."""
    process = subprocess.Popen([sys.executable, "-c", HOLD, str(output)], stdout=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stdout.readline() == b"held\n"
    return process


def holder(**changes: object) -> bytes:
    """The lock that this process would write, with the given fields of ``ProcessId`` changed."""
    return describe(dataclasses.replace(ProcessId.own(), **changes))


def age(gcs: Bucket, seconds: float) -> None:
    """Makes the storage report this age for the lock of ``out``."""
    written = datetime.now(timezone.utc) - timedelta(seconds=seconds)
    stored = gcs.server._emulator._storage.objects[gcs.bucket]["out/_beamlabel/lock"]
    stored["updated"] = stored["timeCreated"] = written.strftime("%Y-%m-%dT%H:%M:%S.%fZ")
