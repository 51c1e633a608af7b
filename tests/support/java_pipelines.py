"""A Java pipeline that calls ``LabelImages``, with the expansion service and the Prism server that it needs."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from support import needs
from support.paths import ROOT
from support.programs import serving
from support.runner_jobs import PRISM
from support.servers import free_port

JARS = ROOT / ".runners" / "java"
SERVICE = "beamlabel.pipeline.runners.expansion_service"


def require_java() -> None:
    """Skips the test if the Java pipeline cannot run."""
    if not (JARS / ".installed").is_file():
        needs.lacking("no Java pipeline; tools/setup_java.sh builds it if Java and Maven are installed")
    if not PRISM.exists():
        needs.lacking("no Prism; tools/setup_prism.sh builds it if Go is installed")


@contextmanager
def prism_server(directory: Path) -> Iterator[str]:
    """Runs Prism as a server; yields the address for jobs."""
    port = free_port()
    with serving([PRISM, f"-job_port={port}", "-serve_http=false"], port, directory / "prism.log", {}):
        yield f"localhost:{port}"


@contextmanager
def expansion_service(directory: Path, *options: object) -> Iterator[str]:
    """Runs the expansion service with the given options; yields its address."""
    port = free_port()
    command = [sys.executable, "-m", SERVICE, f"--port={port}", *map(str, options)]
    with serving(command, port, directory / "expansion.log", {"PYTHONPATH": str(ROOT)}):
        yield f"localhost:{port}"


@dataclass(frozen=True)
class JavaRun:
    """A finished Java pipeline."""

    code: int
    log: str
    output: Path

    @property
    def predictions(self) -> list[dict[str, Any]]:
        return self._rows("predictions")

    @property
    def failures(self) -> list[dict[str, Any]]:
        return self._rows("failures")

    def _rows(self, name: str) -> list[dict[str, Any]]:
        lines = (self.output / f"{name}.jsonl").read_text().splitlines()
        return sorted((json.loads(line) for line in lines), key=lambda row: row["uri"])


def run_java(
    output: Path, uris: Path, *options: str, service: str, prism: str, **arguments: object
) -> JavaRun:
    """Labels a list of images from Java.

    Args:
      output: The directory for the rows.
      uris: A text file with one URI per line.
      options: Further options of the program.
      service, prism: The addresses.
      arguments: The arguments of ``LabelImages``.
    """
    done = subprocess.run(
        [
            "java", "-Xmx512m", "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn", "-cp", f"{JARS}/*", "LabelFromJava",
            "--runner=PortableRunner", f"--jobEndpoint={prism}",
            # The Java steps run in the Java process, which needs an explicit port.
            "--defaultEnvironmentType=LOOPBACK", f"--defaultEnvironmentConfig=localhost:{free_port()}",
            f"--service={service}", f"--uris={uris}", f"--output={output}",
            f"--arguments={json.dumps(arguments)}", *options,
        ],
        capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    return JavaRun(done.returncode, done.stdout + done.stderr, output)
