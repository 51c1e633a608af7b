"""A bundle of a worker process, whose data stream stays open during its work."""

from __future__ import annotations

import threading
import time
import uuid
from collections.abc import Sequence
from dataclasses import dataclass, field
from queue import SimpleQueue
from typing import Any

from apache_beam.metrics import monitoring_infos
from apache_beam.portability.api import beam_fn_api_pb2

from beamlabel.pipeline.runners.processes.pool import ProcessHandler


@dataclass(eq=False)
class Unit:
    """An element of the stage, with the amount of its work.

    Attributes:
      data: the element, encoded.
      rows: approximate number of references in it.
      name: for messages.
      deaths: number of processes that died with it.
      hangs: number of processes that hung with it and were ended.
    """

    data: bytes
    rows: int
    name: str
    deaths: int = 0
    hangs: int = 0


class _RemoteError(Exception):
    """The traceback of a worker process, as text."""


@dataclass(eq=False)
class Outcome:
    """The end of a bundle: Beam's response and the outputs, or an error."""

    bundle: OpenBundle
    result: Any = None
    outputs: Sequence[tuple[str, bytes]] = ()
    error: Exception | None = None


@dataclass(eq=False)
class _Asked:
    """A request to the process, with its response once it has arrived."""

    future: Any = None

    def answer(self) -> Any:
        """The response, once; None before, or if there is an error because the process or the bundle has ended."""
        if self.future is None or not self.future.is_done():
            return None
        answer, self.future = self.future.get(), None
        return None if answer.error else answer


@dataclass(eq=False)
class OpenBundle:
    """One bundle of one process; ``outcomes`` receives its end.

    Attributes:
      sent: the units sent to it, in order.
      begun: number of units that the process has reported as started.
      is_closed: whether it gets no more units.
    """

    handler: ProcessHandler
    descriptor_id: str
    read_id: str
    outputs: Sequence[str]
    cache_token: Any
    outcomes: SimpleQueue[Outcome]
    sent: list[Unit] = field(default_factory=list)
    begun: int = 0
    is_closed: bool = False

    def __post_init__(self) -> None:
        self._id = f"worker_processes_{uuid.uuid4().hex}"
        self._since = time.monotonic()
        self._current_since = self._since
        self._progress, self._split = _Asked(), _Asked()
        self._stream = self.handler.data_conn.output_stream(self._id, self.read_id)
        request = beam_fn_api_pb2.ProcessBundleRequest(
            process_bundle_descriptor_id=self.descriptor_id, cache_tokens=[self.cache_token]
        )
        self._result = self._push(process_bundle=request, instruction_id=self._id)
        threading.Thread(target=self._collect, name=f"collect-{self._id}", daemon=True).start()

    @property
    def waiting(self) -> list[Unit]:
        """The units that the process has not started."""
        return self.sent[self.begun :]

    @property
    def rate(self) -> float:
        """Rows per second over the finished units; 0 before the first one."""
        rows = sum(unit.rows for unit in self.sent[: max(0, self.begun - 1)])
        return rows / max(self._current_since - self._since, 1e-3)

    def seconds_to_next(self) -> float:
        """Approximate time until the current unit is finished."""
        if not self.begun:
            return 0.0
        now, rows = time.monotonic(), self.sent[self.begun - 1].rows
        spent = now - self._current_since
        # The rate is too optimistic for a process that has become slow.
        return max(rows / self.rate - spent, spent) if self.rate else spent

    def send(self, unit: Unit) -> None:
        """Adds a unit for the process; ``flush`` sends it."""
        self._stream.write(unit.data)
        self.sent.append(unit)

    def flush(self) -> None:
        """Sends the added units."""
        if not self.is_closed:
            self._stream.flush()

    def close(self) -> None:
        """Ends the input; the process ends the bundle after its last unit."""
        if not self.is_closed:
            self.is_closed = True
            self._stream.close()

    @property
    def can_give_back(self) -> bool:
        """Whether it has units that are not started, and can be asked for them or has been asked."""
        return bool(self.waiting) and (not self.is_closed or self._split.future is not None)

    def ask_back(self) -> None:
        """Asks for the units that are not started, unless it was asked before."""
        if self.is_closed:
            return
        # A unit that is sent after a split would be lost.
        self.close()
        wanted = beam_fn_api_pb2.ProcessBundleSplitRequest.DesiredSplit(
            fraction_of_remainder=0.0, estimated_input_elements=len(self.sent)
        )
        request = beam_fn_api_pb2.ProcessBundleSplitRequest(
            instruction_id=self._id, desired_splits={self.read_id: wanted}
        )
        self._split.future = self._push(process_bundle_split=request)

    def look(self) -> list[Unit]:
        """Reads the process's responses and sends new requests; returns the units that it gave back."""
        back: list[Unit] = []
        split = self._split.answer()
        if split is not None:
            for channel in split.process_bundle_split.channel_splits:
                back = self.sent[channel.first_residual_element :]
                del self.sent[channel.first_residual_element :]
        progress = self._progress.answer()
        if progress is not None:
            self._learn(progress.process_bundle_progress.monitoring_infos)
        if self._progress.future is None:
            request = beam_fn_api_pb2.ProcessBundleProgressRequest(instruction_id=self._id)
            self._progress.future = self._push(process_bundle_progress=request)
        return back

    def _learn(self, infos: Any) -> None:
        for info in infos:
            if info.urn == monitoring_infos.DATA_CHANNEL_READ_INDEX:
                begun = min(monitoring_infos.extract_counter_value(info) + 1, len(self.sent))
                if begun > self.begun:
                    self.begun, self._current_since = begun, time.monotonic()

    def _push(self, **request: Any) -> Any:
        return self.handler.control_conn.push(beam_fn_api_pb2.InstructionRequest(**request))

    def _collect(self) -> None:
        """Waits for all outputs and the response, in a separate thread."""
        outputs: list[tuple[str, bytes]] = []
        try:
            elements = self.handler.data_conn.input_elements(self._id, self.outputs, self._is_broken)
            outputs.extend((element.transform_id, element.data) for element in elements)
            result = self._result.get()
            if result.error:
                raise RuntimeError(result.error.strip().rpartition("\n")[2]) from _RemoteError(result.error)
        except Exception as error:
            # A broken connection also means that the process died, even if that is not known yet.
            died = self.handler.control_conn.error
            self.outcomes.put(Outcome(self, error=died or error))
        else:
            self.outcomes.put(Outcome(self, result, outputs))

    def _is_broken(self) -> bool:
        return self.handler.died or (self._result.is_done() and bool(self._result.get().error))
