"""Reads ``deploy/nightly/``: the job's command line in each file, and the files with other values."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import yaml

from support.paths import ROOT

DIRECTORY = ROOT / "deploy" / "nightly"
LABEL = DIRECTORY / "label.sh"
MODULE = "https://tfhub.dev/google/imagenet/mobilenet_v2_075_160/classification/1"
HOME = "/opt/beamlabel"


def text(name: str, **instead: object) -> str:
    """The text of a file with the given values of BUCKET, MODULE and HOME."""
    content = (DIRECTORY / name).read_text()
    for key, there in {"BUCKET": "gs://BUCKET", "MODULE": MODULE, "HOME": HOME}.items():
        if key in instead:
            content = content.replace(there, str(instead[key]))
    return content


def cronjob(**instead: object) -> dict[str, Any]:
    return next(yaml.safe_load_all(text("cronjob.yaml", **instead)))


def launcher(job: dict[str, Any]) -> dict[str, Any]:
    """The container of a CronJob."""
    (container,) = job["spec"]["jobTemplate"]["spec"]["template"]["spec"]["containers"]
    return container


def service_settings(name: str = "beamlabel-nightly.service", **instead: object) -> list[tuple[str, str]]:
    """Key and value of each setting of a systemd unit in order, with continued lines joined."""
    lines = text(name, **instead).replace("\\\n", " ").splitlines()
    pairs = [line.partition("=") for line in lines if re.match(r"[A-Za-z]+=", line)]
    return [(key, value) for key, _, value in pairs]


def cron_line(**instead: object) -> str:
    (line,) = [line for line in text("beamlabel.cron", **instead).splitlines() if re.match(r"[\d*]", line)]
    return line


def arguments(name: str) -> list[str]:
    """The job's arguments in a file, without --run_date if another component sets it."""
    if name == "cronjob.yaml":
        return launcher(cronjob())["args"]
    if name == "beamlabel-nightly.service":
        return shlex.split(dict(service_settings())["ExecStart"])[1:]
    words = shlex.split(cron_line().split(maxsplit=6)[6].partition(" >")[0])
    return words[1:]


STANDIN = f"""#!{sys.executable} -S
import json, os, sys
arguments = sys.argv[1:]
with open(__file__ + ".log", "a") as log:
    print(json.dumps(arguments), file=log)
codes = arguments[-1].split(",")
with open(__file__ + ".log") as log:
    number = len(log.readlines()) - 1
print(f"run {{number}}", flush=True)
sys.exit(int(codes[min(number, len(codes) - 1)]))
"""


class Standin:
    """A stand-in for beamlabel that exits with the codes in its last argument, in turn."""

    def __init__(self, directory: Path) -> None:
        self.path = directory / "beamlabel"
        self.path.write_text(STANDIN)
        self.path.chmod(0o755)

    @property
    def runs(self) -> list[list[str]]:
        return [json.loads(line) for line in Path(f"{self.path}.log").read_text().splitlines()]

    def label(self, *arguments: str, **environment: object) -> int:
        limits = {"TRIES": 3, "WAIT": 0, "PATIENCE": 3600} | environment
        named = {name: str(value) for name, value in limits.items()}
        command = [LABEL, *arguments]
        return subprocess.run(command, env={**os.environ, "BEAMLABEL": str(self.path), **named}).returncode
