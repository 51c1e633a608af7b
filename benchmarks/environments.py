"""Environments of the peers: the environment of the running Python, or separate ones that are created on demand."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Iterable
from pathlib import Path

HERE = Path(__file__).resolve().parent
OWN = "own"
_CONSTRAINTS = HERE.parent / "constraints.txt"
_MODULES = {
    "litert": ("ai_edge_litert",),
    "openvino": ("openvino",),
    "tensorflow": ("tensorflow", "tensorflow_hub"),
}
_PACKAGES = (
    "ai-edge-litert",
    "apache-beam",
    "beamlabel",
    "daft",
    "keras",
    "numpy",
    "opencv-python-headless",
    "openvino",
    "pandas",
    "pillow",
    "pyarrow",
    "pyspark",
    "ray",
    "simplejpeg",
    "tensorflow",
    "tensorflow-hub",
)
_ASK_VERSIONS = """
import importlib.metadata, json, sys
found = {}
for name in sys.argv[1:]:
    try:
        found[name] = importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        pass
print(json.dumps(found))
"""


class MissingError(Exception):
    """An environment is not available; the message gives the reason in one line."""


def variables() -> dict[str, str]:
    """Returns this process's environment variables without those that keep Python from using compiled bytecode."""
    kept = {
        k: v for k, v in os.environ.items() if k not in ("PYTHONDONTWRITEBYTECODE", "PYTHONPYCACHEPREFIX")
    }
    return {**kept, "TF_CPP_MIN_LOG_LEVEL": "3"}


def python_of(environment: str, cache: Path) -> str:
    """Returns the interpreter of an environment; creates the environment first if it does not exist.

    Args:
      environment: ``own``, or the NAME of a ``peers/requirements-NAME.txt``.
      cache: directory of the environments.

    Raises:
      MissingError: the environment cannot be created.
    """
    if environment == OWN:
        return sys.executable
    if environment == "spark":
        java_version()
    requirements = HERE / "peers" / f"requirements-{environment}.txt"
    made_of = requirements.read_bytes() + _CONSTRAINTS.read_bytes() + sys.version.encode()
    directory = cache / "environments" / f"{environment}-{hashlib.sha256(made_of).hexdigest()[:12]}"
    python = directory / "bin" / "python"
    if not (directory / "complete").exists():
        shutil.rmtree(directory, ignore_errors=True)
        directory.parent.mkdir(parents=True, exist_ok=True)
        _run([sys.executable, "-m", "venv", str(directory)], "could not create a virtual environment")
        # TensorFlow starts in a third of the time if its bytecode was compiled during installation.
        install = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--compile"]
        _run([*install, "-r", str(requirements)], "pip could not install the requirements")
        (directory / "complete").touch()
    return str(python)


def check_modules(needs: Iterable[str]) -> None:
    """Checks that the running Python has the modules that peers in its environment need: ``litert``, ``tensorflow``.

    Raises:
      MissingError: a module cannot be found.
    """
    import importlib.util

    for need in needs:
        for module in _MODULES[need]:
            if importlib.util.find_spec(module) is None:
                raise MissingError(f"this Python has no module {module}")


def java_version() -> str:
    """Returns the version of the Java that Spark would use, such as ``17.0.15``.

    Raises:
      MissingError: there is no Java.
    """
    home = os.environ.get("JAVA_HOME")
    java = str(Path(home) / "bin" / "java") if home else "java"
    try:
        answer = subprocess.run([java, "-version"], capture_output=True, text=True, check=True).stderr
    except (OSError, subprocess.CalledProcessError) as error:
        raise MissingError("Spark needs Java 17 or newer, but `java` does not run") from error
    return parse_java_version(answer)


def parse_java_version(answer: str) -> str:
    """Returns the version in the output of ``java -version``."""
    return answer.partition('"')[2].partition('"')[0]


def versions(python: str) -> dict[str, str]:
    """Returns the versions of the relevant packages that an environment has."""
    answer = subprocess.run(
        [python, "-c", _ASK_VERSIONS, *_PACKAGES], capture_output=True, text=True, check=True, env=variables()
    )
    found: dict[str, str] = json.loads(answer.stdout)
    return found


def machine() -> dict[str, object]:
    """Returns the facts that the figures depend on: CPU, cores, memory, Python, system."""
    info = Path("/proc/cpuinfo").read_text()
    facts = {
        name.strip(): value.strip() for name, _, value in (line.partition(":") for line in info.splitlines())
    }
    flags = set(facts.get("flags", "").split())
    total = int(Path("/proc/meminfo").read_text().split()[1])
    units = ("avx2", "avx512f", "avx512_vnni", "avx512_bf16", "amx_bf16")
    return {
        "cpu": facts.get("model name", "unknown"),
        "units": [unit for unit in units if unit in flags],
        "cores": len(os.sched_getaffinity(0)),
        "memory_gb": round(total / 2**20, 1),
        "python": sys.version.split()[0],
        "system": f"{os.uname().sysname} {os.uname().release}, {sysconfig.get_platform()}",
    }


def _run(command: list[str], problem: str) -> None:
    finished = subprocess.run(command, capture_output=True, text=True, env=variables())
    if finished.returncode:
        lines = [line for line in finished.stderr.splitlines() if line.strip()] or ["no error message"]
        told = next((line for line in lines if line.startswith("ERROR:")), lines[-1])
        raise MissingError(f"{problem}: {told.removeprefix('ERROR: ')}")
