"""Beam's local runner, with the labeling stage in worker processes and everything else in this process."""

from __future__ import annotations

from typing import Any

from apache_beam.portability.api import beam_runner_api_pb2
from apache_beam.runners.portability.fn_api_runner import FnApiRunner

from beamlabel.pipeline.runners.processes import pool as pools
from beamlabel.pipeline.runners.processes.hand_out import HandOut
from beamlabel.pipeline.runners.processes.pool import Pool

_ENVIRONMENT = "beamlabel_worker_processes"


class ProcessesRunner(FnApiRunner):
    """Runs one stage in worker processes.

    Units are planned and records are committed in this process, because that is little work and can start at once.

    Args:
      pool: the processes, which start and end with the pipeline.
      step: a transform of the stage.
      provision_info: see ``FnApiRunner``.
    """

    def __init__(self, pool: Pool, step: str, provision_info: Any) -> None:
        super().__init__(provision_info=provision_info)
        self._pool, self._step = pool, step

    def create_stages(self, pipeline_proto: Any) -> tuple[Any, list[Any]]:
        """Beam's stages, with a separate environment for that of ``step``.

        Raises:
          ValueError: there is no such step.
        """
        context, stages = super().create_stages(pipeline_proto)
        found = [stage for stage in stages if any(self._is_ours(one) for one in stage.transforms)]
        if len(found) != 1:
            raise ValueError(f"{len(found)} stages instead of one have the step {self._step}")
        found[0].environment = _ENVIRONMENT
        self._payload = pools.register(self._pool)
        context.components.environments[_ENVIRONMENT].CopyFrom(
            beam_runner_api_pb2.Environment(urn=pools.URN, payload=self._payload)
        )
        return context, stages

    def run_stages(self, stage_context: Any, stages: list[Any]) -> Any:
        """Runs the stages, and always ends the processes."""
        try:
            self._pool.start()
            return super().run_stages(stage_context, stages)
        finally:
            self._pool.close()
            pools.forget(self._payload)

    # Beam has no public way to distribute a stage's input differently.
    def _get_bundle_manager(self, bundle_context_manager: Any) -> Any:
        if bundle_context_manager.stage.environment != _ENVIRONMENT:
            return super()._get_bundle_manager(bundle_context_manager)
        tokens = FnApiRunner.get_cache_token_generator(static=False)
        return HandOut(bundle_context_manager, self._pool.size, tokens)

    def _is_ours(self, transform: Any) -> bool:
        return str(transform.unique_name).split("/")[0] == self._step
