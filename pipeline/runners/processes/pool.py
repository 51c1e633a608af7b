"""The worker processes of a local run, and Beam's handles for them."""

from __future__ import annotations

import contextlib
import shutil
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import grpc
from apache_beam.runners.portability.fn_api_runner import worker_handlers
from apache_beam.runners.portability.fn_api_runner.worker_handlers import (
    BeamFnControlServicer,
    ControlConnection,
    GrpcWorkerHandler,
    WorkerHandler,
)

from beamlabel.pipeline.runners.processes.process import Spokesman, WorkerDiedError, WorkerProcess
from beamlabel.transforms.secrets.logs import get_logger

URN = "beamlabel:environment:worker_processes:v1"
"""Beam's URN of the environment for stages that run in worker processes."""

_LOGGER = get_logger("beamlabel")
# A dying process ends in less time after its connection broke.
_DEATH_SECONDS = 5.0


class Pool:
    """The worker processes of one run.

    Args:
      script: the program of a worker process.
      shares: number of cores of each process.
      options: Beam's options for the workers.
    """

    def __init__(self, script: str, shares: Sequence[int], options: Mapping[str, Any]) -> None:
        self._script, self._shares, self.options = script, shares, dict(options)
        self._spokesman = Spokesman()
        self._lock = threading.Lock()
        self._processes: list[WorkerProcess] = []
        self._idle: list[WorkerProcess] = []
        self._handlers: dict[WorkerProcess, ProcessHandler] = {}
        self._scratch = ""

    def start(self) -> None:
        """Starts all processes, which import while the launcher plans.

        Raises:
          OSError: no process can be started.
        """
        self._scratch = tempfile.mkdtemp(prefix="beamlabel-workers-")
        for number, cores in enumerate(self._shares, 1):
            try:
                process = self._start(number, cores)
            except OSError as error:
                if not self._processes:
                    raise
                words = "Could start only %d of %d worker processes: %s"
                _LOGGER.warning(words, number - 1, len(self._shares), error)
                break
            self._processes.append(process)
        self._idle = [*self._processes]
        cores = sum(process.cores for process in self._processes)
        _LOGGER.info("%d worker processes share %d cores", self.size, cores)

    def take(self, handler: ProcessHandler) -> WorkerProcess:
        """Takes an unused process, and reports its death to the handler."""
        with self._lock:
            process = self._idle.pop(0)
            self._handlers[process] = handler
        if not process.is_alive:
            handler.abort()
        return process

    def start_another(self, ended: WorkerProcess) -> bool:
        """Starts a replacement for a process that has ended; returns whether it could."""
        try:
            process = self._start(ended.number, ended.cores)
        except OSError as error:
            _LOGGER.warning("Could not start a replacement for worker process %d: %s", ended.number, error)
            return False
        with self._lock:
            self._processes.append(process)
            self._idle.append(process)
        return True

    @property
    def size(self) -> int:
        """The number of started processes."""
        return len(self._processes)

    def close(self) -> None:
        """Kills the remaining processes, and deletes their temporary files."""
        for process in self._processes:
            process.kill()
        for process in self._processes:
            process.wait(_DEATH_SECONDS)
        shutil.rmtree(self._scratch, ignore_errors=True)

    def _start(self, number: int, cores: int) -> WorkerProcess:
        # Temporary files of a killed process are deleted with the run's.
        environment = {"TMPDIR": self._scratch}
        return WorkerProcess(
            self._script,
            number,
            cores,
            environment,
            lambda line: self._spokesman.say(number, line),
            self._ended,
        )

    def _ended(self, process: WorkerProcess) -> None:
        with self._lock:
            handler = self._handlers.get(process)
        if handler is not None:
            handler.abort()


class _Control(ControlConnection):
    """Beam's control connection of a worker that may die, which then fails all pending requests."""

    def __init__(self, hung_up: Callable[[], None]) -> None:
        super().__init__()
        self.error: WorkerDiedError | None = None
        self._hung_up = hung_up

    @property
    def is_connected(self) -> bool:
        return bool(self._state == BeamFnControlServicer.STARTED_STATE)

    def push(self, request: Any) -> Any:
        future = super().push(request)
        if future is not None and self.error is not None:
            future.abort(self.error)
        return future

    def abort(self, error: Exception) -> None:
        self.error = error if isinstance(error, WorkerDiedError) else WorkerDiedError(str(error))
        for future in list(self._futures_by_id.values()):
            future.abort(self.error)

    def _read(self) -> None:
        with contextlib.suppress(Exception):  # a dying process breaks its connection
            super()._read()
        self._hung_up()


class ProcessHandler(GrpcWorkerHandler):
    """Beam's handle for one worker process.

    Beam's own handle waits forever for a dead worker, and has no public way to stop waiting, so private names are used.
    """

    def __init__(self, pool: Pool, state: Any, provision_info: Any, grpc_server: Any) -> None:
        super().__init__(state, provision_info, grpc_server)
        self._pool = pool
        # Disables the thread that flushes a stream periodically, because it would lose concurrent writes.
        self.data_conn._data_buffer_time_limit_ms = 0
        self._end_quietly(self.data_conn)
        self.control_conn = _Control(self._hung_up)
        with self.control_handler._lock:
            self.control_handler._connections_by_worker_id[self.worker_id] = self.control_conn
        self.process = pool.take(self)

    @property
    def is_connected(self) -> bool:
        """Whether the process has connected and accepts work."""
        return self.control_conn.is_connected

    @property
    def died(self) -> bool:
        """Whether the process is known to have ended."""
        return self.control_conn.error is not None

    def start_worker(self) -> None:
        """Sends the process its settings as this worker."""
        self.process.begin(
            {
                "control": self.control_address,
                "worker_id": self.worker_id,
                "options": self._pool.options,
                "capabilities": " ".join(worker_handlers.FNAPI_RUNNER_CAPABILITIES),
            }
        )

    def replace(self) -> bool:
        """Starts another process for the next handler; returns whether it could."""
        return self._pool.start_another(self.process)

    def abort(self) -> None:
        """Ends all waiting for the process, which has ended."""
        how = self.process.how_it_ended() if hasattr(self, "process") else "ended during its start"
        self.control_conn.abort(WorkerDiedError(f"worker process {self.process.number} {how}"))

    @staticmethod
    def _end_quietly(connection: Any) -> None:
        """Keeps Beam's data plane from logging a traceback when the process dies, which breaks its connection."""
        read = connection.set_inputs

        def until_broken(elements: Iterator[Any]) -> Iterator[Any]:
            with contextlib.suppress(grpc.RpcError):
                yield from elements

        connection.set_inputs = lambda elements: read(until_broken(elements))

    def _hung_up(self) -> None:
        """Handles the end of the connection, after which the process usually ends as well."""
        if not self.process.wait(_DEATH_SECONDS):
            self.control_conn.abort(
                WorkerDiedError(f"worker process {self.process.number} closed its connection")
            )
            self.process.kill()

    def close(self) -> None:
        """Ends the process, whose work is all staged or reported."""
        self.process.kill()

    def stop_worker(self) -> None:
        """Ends the process, see ``close``."""
        self.close()


_pools: dict[bytes, Pool] = {}


def register(pool: Pool) -> bytes:
    """Registers a pool; returns the payload of an environment with its processes."""
    key = str(id(pool)).encode()
    _pools[key] = pool
    return key


def forget(payload: bytes) -> None:
    """Removes a closed pool from the register."""
    _pools.pop(payload, None)


def _handler(payload: bytes, *arguments: Any) -> ProcessHandler:
    return ProcessHandler(_pools[payload], *arguments)


WorkerHandler.register_environment(URN, bytes)(_handler)
