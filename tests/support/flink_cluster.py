"""A Flink cluster on the loopback interface: JobManager, TaskManagers and Beam's job server as Java processes."""

from __future__ import annotations

import contextlib
import json
import os
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from support import needs
from support.flink_java import OPEN, TASK_MANAGER_MEMORY
from support.jobs import FinishedJob
from support.paths import ROOT
from support.servers import free_port

REPOSITORY = ROOT
INSTALLED = REPOSITORY / ".runners" / "flink"
JOB_SERVER_JAR = INSTALLED / "job-server.jar"

# Dead TaskManagers are detected within seconds instead of Flink's 50 s. Jobs restart, unlike batch jobs by default.
_SETTINGS = {
    "jobmanager.rpc.address": "127.0.0.1",
    "jobmanager.bind-host": "127.0.0.1",
    "taskmanager.host": "127.0.0.1",
    "taskmanager.bind-host": "127.0.0.1",
    "rest.address": "127.0.0.1",
    "rest.bind-address": "127.0.0.1",
    "jobmanager.memory.heap.size": "384m",
    "heartbeat.interval": "2000",
    "heartbeat.timeout": "30000",
    "slot.request.timeout": "60000",
    # A pipeline with several sinks runs several shuffles at once. By default each would reserve 512 buffers.
    "taskmanager.network.sort-shuffle.min-buffers": "64",
    "restart-strategy.type": "fixed-delay",
    "restart-strategy.fixed-delay.attempts": "10",
    "restart-strategy.fixed-delay.delay": "1 s",
}

_LOG4J = """
rootLogger.level = INFO
rootLogger.appenderRef.console.ref = Console
appender.console.name = Console
appender.console.type = CONSOLE
appender.console.layout.type = PatternLayout
appender.console.layout.pattern = %d{HH:mm:ss,SSS} %-5p %-60c{1} %m%n
"""

_UP_SECONDS = 240.0
_MARK = "BEAMLABEL_TEST_CLUSTER"  # in the environment of all descendants of the cluster's processes
_ENDED = ("FINISHED", "CANCELED", "FAILED")


def wait_for(condition: Callable[[], Any], seconds: float, what: str, *, poll: float = 0.1) -> Any:
    """Waits until ``condition`` returns a true value, and returns that value."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if found := condition():
            return found
        time.sleep(poll)
    raise TimeoutError(f"after {seconds:g} s: {what}")


def require_flink() -> None:
    """Skips the test if Flink cannot run."""
    if shutil.which("java") is None:
        needs.lacking("Java is not installed")
    if not JOB_SERVER_JAR.is_file():
        needs.lacking("no Flink; tools/setup_flink.sh installs it")


class FlinkCluster:
    """A session cluster with one slot per TaskManager.

    Args:
      directory: The directory of configuration and logs.
      task_managers: The number of TaskManagers.
      settings: Further settings of Flink.
      cores: The core that each TaskManager and its workers may use; all cores by default.
      environments: Variables of a process and its children by its name, such as ``taskmanager-0``.
    """

    def __init__(
        self,
        directory: Path,
        task_managers: int = 2,
        settings: dict[str, str] | None = None,
        cores: Sequence[int] = (),
        environments: Mapping[str, Mapping[str, str]] | None = None,
    ) -> None:
        self.directory = directory
        self._environments = environments or {}
        self._mark = f"{_MARK}={uuid.uuid4().hex}"
        self.rest_port = free_port()
        self.address = f"127.0.0.1:{self.rest_port}"
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        self._starts: dict[str, int] = {}
        self._job_endpoint = ""
        self._cores: dict[str, int] = {}
        directory.mkdir(parents=True, exist_ok=True)
        (directory / "log4j.properties").write_text(_LOG4J)
        all_settings = {
            **_SETTINGS,
            "jobmanager.rpc.port": str(free_port()),
            "rest.port": str(self.rest_port),
            "io.tmp.dirs": str(directory / "tmp"),
            **(settings or {}),
        }
        (directory / "tmp").mkdir(exist_ok=True)
        (directory / "config.yaml").write_text("".join(f"{k}: {v}\n" for k, v in all_settings.items()))
        self.worker = self._write_worker(directory / "beamlabel-worker")
        try:
            self._start_flink(
                "jobmanager",
                "384m",
                "org.apache.flink.runtime.entrypoint.StandaloneSessionClusterEntrypoint",
                ["--executionMode", "cluster"],
            )
            self.names = [f"taskmanager-{number}" for number in range(task_managers)]
            self._cores = dict(zip(self.names, cores, strict=False))
            for name in self.names:
                self.start_task_manager(name)
            self.wait_for_slots(task_managers)
        except BaseException:
            self.close()
            raise

    @staticmethod
    def _write_worker(path: Path) -> Path:
        """Writes a boot program that runs this source tree instead of an installed package."""
        quoted = shlex.quote
        path.write_text(
            "#!/bin/sh\n"
            f"PYTHONPATH={quoted(str(REPOSITORY))}${{PYTHONPATH:+:$PYTHONPATH}} "
            f"exec ${{BEAMLABEL_TEST_LIMIT:-}} {quoted(sys.executable)} "
            '-m beamlabel.pipeline.runners.worker_boot "$@"\n'
        )
        path.chmod(0o755)
        return path

    # --- processes ------------------------------------------------------------------------------------

    def _start_flink(self, name: str, heap: str, main: str, arguments: list[str]) -> None:
        command = [
            "java", f"-Xmx{heap}", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", *OPEN,
            f"-Dlog4j.configurationFile={self.directory / 'log4j.properties'}",
            # Not a Flink option: its remoting gives up after 10 s and ends the process.
            "-Dpekko.remote.classic.startup-timeout=120s",
            "-cp", f"{INSTALLED / 'lib'}/*", main, "--configDir", str(self.directory), *arguments,
        ]  # fmt: skip
        core = self._cores.get(name)
        self._start(name, command if core is None else ["taskset", "--cpu-list", str(core), *command])

    def _start(self, name: str, command: list[str]) -> None:
        number = self._starts[name] = self._starts.get(name, 0) + 1
        with (self.directory / f"{name}-{number}.log").open("wb") as log:
            self._processes[name] = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                cwd=self.directory / "tmp",
                env={**os.environ, **self._environments.get(name, {}), **dict([self._mark.split("=")])},
                start_new_session=True,
            )

    def start_task_manager(self, name: str) -> None:
        """Starts a TaskManager, or restarts it after a kill, like a pod."""
        settings = {**TASK_MANAGER_MEMORY, "taskmanager.resource-id": f"{name}-{self._starts.get(name, 0)}"}
        arguments = [argument for key, value in settings.items() for argument in ("-D", f"{key}={value}")]
        main = "org.apache.flink.runtime.taskexecutor.TaskManagerRunner"
        self._start_flink(name, "384m", main, arguments)

    def kill_task_manager(self, name: str) -> None:
        """Sends SIGKILL to the TaskManager alone."""
        process = self._processes[name]
        process.kill()
        process.wait()

    def pid(self, name: str) -> int:
        """The process id of a TaskManager or another process of the cluster."""
        return self._processes[name].pid

    def workers(self, name: str, *, watched: bool = False) -> list[int]:
        """The process ids of a TaskManager's SDK workers; ``watched``: of those that have started their guards."""
        return [one for one in _children(self._processes[name].pid) if not watched or _children(one)]

    def left_processes(self) -> list[int]:
        """All live descendants of the cluster's processes."""
        own = {process.pid for process in self._processes.values()}
        found = []
        for directory in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                if self._mark.encode() in (directory / "environ").read_bytes().split(b"\0"):
                    found.append(int(directory.name))
        return sorted({*found} - own)

    def log(self, name: str) -> str:
        """The output of a process and of earlier processes of that name."""
        paths = sorted(self.directory.glob(f"{name}-*.log"), key=lambda path: path.stat().st_mtime)
        return "".join(path.read_text(errors="replace") for path in paths)

    def close(self) -> None:
        for process in self._processes.values():
            if process.poll() is None:
                process.terminate()
        for process in self._processes.values():
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(10)
            process.kill()
            process.wait()

    # --- Flink's REST interface -----------------------------------------------------------------------

    def rest(self, path: str) -> Any:
        with urllib.request.urlopen(f"http://{self.address}/{path}", timeout=10) as answer:
            return json.load(answer)

    def wait_for_slots(self, number: int, *, free: bool = True) -> None:
        """Waits until this number of slots is free."""

        def there() -> bool:
            for name, process in self._processes.items():
                if process.poll() is not None:
                    raise RuntimeError(f"{name} ended with {process.returncode}: {self.log(name)[-3000:]}")
            with contextlib.suppress(OSError):
                slots = self.rest("overview")
                counted = slots["slots-available" if free else "slots-total"]
                return bool(counted >= number and slots["taskmanagers"] >= len(self.names))
            return False

        wait_for(there, _UP_SECONDS, f"{number} slots")

    def jobs(self) -> dict[str, str]:
        """The state of each job by id, oldest first."""
        jobs = sorted(self.rest("jobs/overview")["jobs"], key=lambda job: job["start-time"])
        return {job["jid"]: job["state"] for job in jobs}

    def running_jobs(self) -> list[str]:
        return [job for job, state in self.jobs().items() if state not in _ENDED]

    def wait_for_job(self, before: Iterable[str] = (), seconds: float = 120) -> str:
        """Waits until a new job runs, and returns its id."""

        def runs() -> str | None:
            new = {job: state for job, state in self.jobs().items() if job not in before}
            return next((job for job, state in new.items() if state == "RUNNING"), None)

        return str(wait_for(runs, seconds, "a job on Flink"))

    def cancel(self, job: str) -> None:
        request = urllib.request.Request(f"http://{self.address}/jobs/{job}?mode=cancel", method="PATCH")
        urllib.request.urlopen(request, timeout=10).close()
        wait_for(lambda: self.jobs()[job] in _ENDED, 60, "the end of a cancelled job")

    def records_by_task_manager(self, job: str) -> dict[str, int]:
        """The number of elements that each TaskManager's tasks have read, over all vertices."""
        found: dict[str, int] = {}
        for vertex in self.rest(f"jobs/{job}")["vertices"]:
            for host in self.rest(f"jobs/{job}/vertices/{vertex['id']}/taskmanagers")["taskmanagers"]:
                name = host["taskmanager-id"]
                found[name] = found.get(name, 0) + host["metrics"]["read-records"]
        return found

    def written_bytes(self, job: str) -> int:
        """The bytes that all tasks of a job have sent to other stages."""
        return sum(int(vertex["metrics"]["write-bytes"]) for vertex in self.rest(f"jobs/{job}")["vertices"])

    def restarts(self, job: str) -> int:
        """The number of failures of the job so far."""
        entries = self.rest(f"jobs/{job}/exceptions?maxExceptions=100")["exceptionHistory"]["entries"]
        return len(entries)

    # --- options of a launcher ----------------------------------------------------------------------

    @property
    def job_endpoint(self) -> str:
        """The host:port of the job server, which starts on first use."""
        if not self._job_endpoint:
            port = free_port()
            self._start(
                "jobserver",
                [
                    "java", "-Xmx512m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-jar", str(JOB_SERVER_JAR),
                    "--flink-master", f"http://{self.address}", "--job-host", "127.0.0.1", "--job-port", str(port),
                    "--artifact-port", "0", "--expansion-port", "0", "--artifacts-dir", f"{self.directory}/artifacts",
                ],
            )  # fmt: skip
            self._job_endpoint = f"127.0.0.1:{port}"
            wait_for(lambda: listens(port), _UP_SECONDS, "a job server")
        return self._job_endpoint

    def runner_options(self, runner: str = "FlinkRunner") -> list[str]:
        """Options that send a job to this cluster; ``PortableRunner`` uses a running job server."""
        where = ["--job_endpoint", self.job_endpoint, "--parallelism", str(len(self.names))]
        if runner == "FlinkRunner":
            where = ["--flink_master", self.address, "--flink_job_server_jar", str(JOB_SERVER_JAR)]
        return ["--runner", runner, *where, *self.environment_options()]

    def environment_options(self) -> list[str]:
        command = json.dumps({"command": str(self.worker)})
        return ["--environment_type", "PROCESS", "--environment_config", command]


def listens(port: int) -> bool:
    """Whether a server on the loopback interface accepts connections."""
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
    except OSError:
        return False
    return True


def _children(parent: int) -> list[int]:
    found = []
    for status in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            fields = status.read_text().rpartition(")")[2].split()
            if int(fields[1]) == parent and fields[0] != "Z":
                found.append(int(status.parent.name))
    return sorted(found)


@dataclass(frozen=True)
class Launched:
    """An ended launcher: its results and its log."""

    finished: FinishedJob
    stderr: str


class Launcher:
    """The command in a separate process."""

    def __init__(
        self,
        output: str | Path,
        *arguments: object,
        cwd: Path | None = None,
        command: Sequence[object] | None = None,
    ) -> None:
        self.output = cwd / output if cwd else Path(output)
        words = ["--output", output, *arguments] if command is None else command
        command = [sys.executable, "-m", "beamlabel", *map(str, words)]
        path = os.pathsep.join(filter(None, [str(REPOSITORY), os.environ.get("PYTHONPATH")]))
        self.process = subprocess.Popen(
            command,
            cwd=cwd,
            env={**os.environ, "PYTHONPATH": path},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def interrupt(self, number: int) -> None:
        """Sends SIGINT to the whole process group, as a terminal does."""
        os.killpg(self.process.pid, number)

    def wait(self, seconds: float = 240) -> Launched:
        try:
            _, stderr = self.process.communicate(timeout=seconds)
        except subprocess.TimeoutExpired:
            os.killpg(self.process.pid, signal.SIGKILL)
            _, stderr = self.process.communicate()
            raise TimeoutError(f"the launcher did not end in {seconds:g} s: {stderr[-3000:]}") from None
        return Launched(FinishedJob(self.process.returncode, self.output), stderr)


def label_on_flink(
    cluster: FlinkCluster,
    output: Path,
    *arguments: object,
    runner: str = "FlinkRunner",
    cwd: Path | None = None,
) -> Launched:
    """Runs the job on the cluster to its end; the arguments include ``--module`` and ``--input``."""
    return Launcher(output, *arguments, *cluster.runner_options(runner), cwd=cwd).wait()


@contextlib.contextmanager
def cluster(directory: Path) -> Iterator[FlinkCluster]:
    """A cluster with two TaskManagers."""
    require_flink()
    running = FlinkCluster(directory)
    try:
        yield running
    finally:
        running.close()
