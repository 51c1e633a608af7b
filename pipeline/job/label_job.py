"""One run of the labeling job, as the graph sees it."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

from beamlabel.pipeline.earlier.tombstones import TombstoneOptions
from beamlabel.transforms.inference.options import PredictOptions
from beamlabel.transforms.inputs.sources.source import SourceOptions
from beamlabel.transforms.loading.load_options import LoadOptions
from beamlabel.transforms.records import InputFile
from beamlabel.transforms.rows.schema import OutputSpec
from beamlabel.transforms.units.time_limit import TimeLimit


@dataclass(frozen=True)
class LabelJob:
    """One run of the labeling job, as the graph sees it.

    Attributes:
      time_limit: after which no unit is begun any more; None for none.
      only_rows: how many references count, where an earlier run's failures are the only ones.
      tombstones: how images that are gone are told; None if they are not.
      heartbeats: whether workers tell in the staging folder how far they are.
    """

    output: str
    staging_dir: str
    plan_id: str
    run_id: str
    files: tuple[InputFile, ...]
    source: SourceOptions
    load: LoadOptions
    predict: PredictOptions
    spec: OutputSpec
    time_limit: TimeLimit | None = None
    only_rows: int | None = None
    heartbeats: bool = False
    report: bool = False
    tombstones: TombstoneOptions | None = None

    def for_workers(self, *, elsewhere: bool, later: bool) -> LabelJob:
        """The job for workers that are in other processes, or begin at some later time."""
        limit = self.time_limit
        if limit is not None and later:
            limit = dataclasses.replace(limit, begun_at=None)
        return dataclasses.replace(self, heartbeats=elsewhere, time_limit=limit)
