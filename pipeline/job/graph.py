"""The whole labeling job on one screen."""

from __future__ import annotations

import apache_beam as beam

from beamlabel.pipeline.job.commit import Commit
from beamlabel.pipeline.job.label_job import LabelJob
from beamlabel.transforms.label_images import Label
from beamlabel.transforms.records import UnitRecord
from beamlabel.transforms.units.open_unit import OpenUnit
from beamlabel.transforms.units.plan_units import PlanUnits
from beamlabel.transforms.writing.write_unit import WriteUnit

LABELING_STEP = "OpenUnit"
"""Name in ``build`` of the first step of the one fused stage that labels."""


def build(pipeline: beam.Pipeline, job: LabelJob) -> beam.PCollection[str]:
    """Adds the job to a pipeline; its result is the path of ``commit.json``.

    Only work units cross the reshuffle. The steps from OpenUnit to WriteUnit are one fused stage without a branch or a
    Flatten, with failures in the same stream. The records of units that need no work join after it.
    """
    planned = pipeline | "PlanUnits" >> PlanUnits(job.files, job.source, job.staging_dir)
    units = planned | beam.Reshuffle()
    opened = units | "OpenUnit" >> OpenUnit(job.source, job.staging_dir, job.time_limit)
    written = (
        opened.refs
        | "Label" >> Label(job.load, job.predict, in_blocks=True)
        | "WriteUnit" >> WriteUnit(job.spec, job.staging_dir, heartbeats=job.heartbeats, summaries=job.report)
    )
    records = (written, opened.staged) | "UnitRecords" >> beam.Flatten().with_output_types(UnitRecord)
    limited = job.source.limit is not None
    return records | "Commit" >> Commit(
        staging_dir=job.staging_dir,
        files=job.files,
        limited=limited,
        billing_project=job.source.billing_project,
        tombstones=job.tombstones,
    )
