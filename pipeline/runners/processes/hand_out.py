"""Hands out work units to worker processes on demand, so that a slow process delays only the units it has started.

Beam's own local runner divides a stage's elements among its workers once, in equal parts. Here each process works on
one bundle whose data stream stays open. Beam's progress reports tell how many elements it has started. It gets the next
ones shortly before it runs out of work, so that it never waits between two units. When no units are left, those that
wait at a late process are taken back, with Beam's split of a bundle, for an idle process.

Each process gets a small unit at the start, so that the first labels are early. After that, large units come first and
small ones last, so that all processes end at nearly the same time.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from queue import Empty, SimpleQueue
from typing import Any

from apache_beam.metrics import monitoring_infos
from apache_beam.portability.api import beam_fn_api_pb2
from apache_beam.runners.portability.fn_api_runner.fn_runner import BundleManager

from beamlabel.pipeline.runners.processes.bundle import OpenBundle, Outcome, Unit
from beamlabel.pipeline.runners.processes.pool import ProcessHandler
from beamlabel.pipeline.runners.processes.process import WorkerDiedError
from beamlabel.transforms.records import WorkUnit
from beamlabel.transforms.secrets.logs import get_logger

# Time between two checks of the processes' progress.
_LOOK_SECONDS = 0.25
# The same while a process that could take units has not connected yet.
_CALL_SECONDS = 0.02
# Units that wait at a process: work for this time, or at first this number of rows; at least one unit.
_AHEAD_SECONDS = 3 * _LOOK_SECONDS
_AHEAD_ROWS = 256
# A unit is taken back from a process that would start it this much later than the receiver becomes idle.
_LATE_SECONDS = 0.5
# A unit is not tried again after so many deaths or hangs of its processes. Hangs are usually at different images: two
# for each image that hangs.
_MOST_DEATHS = 3
_MOST_HANGS = 12

_LOGGER = get_logger("beamlabel")


def in_hand_out_order(units: Sequence[Unit], processes: int) -> list[Unit]:
    """The smallest units first, one for each process; then the others from the largest to the smallest."""
    by_size = sorted(units, key=lambda unit: unit.rows)
    return by_size[:processes] + by_size[processes:][::-1]


class HandOut(BundleManager):
    """Runs a stage's elements in worker processes.

    Args:
      context: Beam's, of the stage.
      processes: their number.
      cache_tokens: Beam's.
    """

    def __init__(self, context: Any, processes: int, cache_tokens: Any) -> None:
        super().__init__(context, None, cache_tokens)
        self._context, self._processes = context, processes

    def process_bundle(
        self,
        inputs: Mapping[str, Any],
        expected_outputs: Mapping[str, bytes],
        fired_timers: Mapping[Any, Any],
        expected_output_timers: Mapping[Any, Any],
        dry_run: bool = False,
    ) -> tuple[Any, list[Any]]:
        """Writes the stage's outputs into Beam's buffers; returns the merged result, and no splits.

        Raises:
          RuntimeError: a function of the job failed, or the processes died.
        """
        if fired_timers or expected_output_timers:
            raise RuntimeError("a stage in worker processes does not support timers")
        ((self._read_id, buffer),) = inputs.items()
        self._outputs = tuple(expected_outputs)
        self._units = deque(in_hand_out_order(list(self._decoded(buffer)), self._processes))
        results = list(self._run())
        infos: list[Any] = []
        for outcome in results:
            infos.extend(outcome.result.process_bundle.monitoring_infos)
            for transform_id, data in () if dry_run else outcome.outputs:
                self._context.get_buffer(expected_outputs[transform_id], transform_id).append(data)
        merged = beam_fn_api_pb2.ProcessBundleResponse(monitoring_infos=monitoring_infos.consolidate(infos))
        return beam_fn_api_pb2.InstructionResponse(process_bundle=merged), []

    def _decoded(self, buffer: Iterable[bytes]) -> Iterable[Unit]:
        port = self._context.process_bundle_descriptor.transforms[self._read_id].spec.payload
        coder_id = beam_fn_api_pb2.RemoteGrpcPort.FromString(port).coder_id
        # Beam's runner decodes only elements that it must inspect. Here these are the units.
        coder = self._context.execution_context.pipeline_context.coders[coder_id].get_impl()
        for data in buffer:
            for number, element in enumerate(coder.decode_all(data)):
                units = list(_units_in(element.value))
                rows = sum(unit.stop - unit.start for unit in units) or _AHEAD_ROWS
                name = ", ".join(unit.unit_id for unit in units) or f"element {number}"
                yield Unit(coder.encode_all([element]), rows, name)

    def _run(self) -> Iterable[Outcome]:
        manager = self._context.execution_context.worker_handler_manager
        wanted = max(1, min(self._processes, len(self._units)))
        self._handlers = wanted
        self._idle: list[ProcessHandler] = manager.get_worker_handlers(
            self._context.stage.environment, wanted
        )[:]
        self._open: list[OpenBundle] = []
        self._events: SimpleQueue[Outcome] = SimpleQueue()
        self._gone = ""
        is_first = True
        while self._open or self._units or is_first:
            for handler in [one for one in self._idle if one.died]:
                self._idle.remove(handler)
                self._lost(handler, str(handler.control_conn.error), [])
            if not self._idle and not self._open:
                raise RuntimeError(f"no worker process is left: worker process {self._gone}")
            for handler in [one for one in self._idle if one.is_connected]:
                if self._units or is_first:
                    is_first = False
                    self._idle.remove(handler)
                    self._begin(handler)
            if not self._units and any(one.is_connected for one in self._idle):
                self._take_back(0.0)
            outcome = self._next()
            if outcome is not None and outcome.error is None:
                yield outcome
            for bundle in self._open:
                self._feed(bundle)

    def _begin(self, handler: ProcessHandler) -> None:
        arguments = (self._read_id, self._outputs, next(self._cache_token_generator), self._events)
        bundle = OpenBundle(handler, self._context.process_bundle_descriptor.id, *arguments)
        self._open.append(bundle)
        self._feed(bundle)

    def _next(self) -> Outcome | None:
        """The next outcome within a moment; if there is none, checks the progress of all bundles."""
        try:
            is_awaited = any(not handler.is_connected for handler in self._idle)
            outcome = self._events.get(timeout=_CALL_SECONDS if is_awaited else _LOOK_SECONDS)
        except Empty:
            for bundle in self._open:
                self._units.extend(bundle.look())
            return None
        bundle = outcome.bundle
        self._open.remove(bundle)
        if outcome.error is None:
            self._idle.append(bundle.handler)
        elif isinstance(outcome.error, WorkerDiedError):
            self._lost(bundle.handler, str(outcome.error), bundle.sent)
        else:
            raise outcome.error
        return outcome

    def _lost(self, handler: ProcessHandler, how: str, units: Sequence[Unit]) -> None:
        """Continues without a process, and hands out its units again, whose staged results are then found.

        A process that hung is replaced, because otherwise a few hanging images would leave no process.
        """
        self._gone = how.removeprefix("worker process ")
        hung = handler.process.hung
        if hung:
            self._replace(handler)
        left = len(self._open) + len(self._idle)
        _LOGGER.warning("%s; its %d units go to the remaining %d", how, len(units), left)
        for unit in units:
            unit.hangs, unit.deaths = unit.hangs + hung, unit.deaths + (not hung)
            if unit.deaths >= _MOST_DEATHS or unit.hangs >= _MOST_HANGS:
                raise RuntimeError(
                    f"{max(unit.deaths, unit.hangs)} worker processes died during unit {unit.name}: worker process "
                    f"{self._gone}"
                )
        self._units.extendleft(reversed(units))

    def _replace(self, handler: ProcessHandler) -> None:
        if handler.replace():
            self._handlers += 1
            manager = self._context.execution_context.worker_handler_manager
            environment = self._context.stage.environment
            self._idle += manager.get_worker_handlers(environment, self._handlers)[-1:]

    def _feed(self, bundle: OpenBundle) -> None:
        """Gives a bundle the units that it needs soon; ends it if there are none, and none can be taken back."""
        if bundle.is_closed:
            return
        ahead = max(bundle.rate * _AHEAD_SECONDS, 0) or _AHEAD_ROWS
        while self._units and (not bundle.waiting or sum(unit.rows for unit in bundle.waiting) < ahead):
            bundle.send(self._units.popleft())
        bundle.flush()
        if not self._units and not bundle.waiting and not self._take_back(bundle.seconds_to_next(), bundle):
            bundle.close()

    def _take_back(self, seconds: float, idle: OpenBundle | None = None) -> bool:
        """Asks a late bundle for units, for a process that is idle in ``seconds``; returns whether any are expected."""
        others = [bundle for bundle in self._open if bundle is not idle and bundle.can_give_back]
        if not others:
            return False
        latest = max(others, key=OpenBundle.seconds_to_next)
        if latest.seconds_to_next() < seconds + _LATE_SECONDS:
            return False
        latest.ask_back()
        return True


def _units_in(value: Any) -> Iterable[WorkUnit]:
    """The work units in an element, which Beam's reshuffle wraps in pairs and lists."""
    if isinstance(value, WorkUnit):
        yield value
    elif hasattr(value, "value") and hasattr(value, "timestamp"):
        yield from _units_in(value.value)
    elif isinstance(value, (tuple, list)) or (
        isinstance(value, Iterable) and not isinstance(value, (str, bytes, dict))
    ):
        for part in value:
            yield from _units_in(part)
