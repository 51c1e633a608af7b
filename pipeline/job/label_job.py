"""The settings of one run of the labeling job for the graph."""

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
    """The settings of one run of the labeling job for the graph.

    Attributes:
      time_limit: the time after which no unit is started; None for no limit.
      only_rows: the number of references, if only the failures of an earlier run are labeled.
      tombstones: how missing images are recorded; None if they are not.
      heartbeats: whether workers report their progress in the staging directory.
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
        """The job for workers that are in other processes (``elsewhere``) or start at a later time (``later``)."""
        limit = self.time_limit
        if limit is not None and later:
            limit = dataclasses.replace(limit, begun_at=None)
        return dataclasses.replace(self, heartbeats=elsewhere, time_limit=limit)
