"""The cost of one slow worker on Flink: ``python benchmarks/stragglers.py [--seconds 40] [--only NAME,...]``.

It uses a real Flink cluster of two TaskManagers with one slot each (``tools/setup_flink.sh``). The plan, the shuffle,
the records and the commit are the job's. A unit sleeps in proportion to its number of images, so other load on the
machine does not matter; in the workers of one TaskManager it sleeps ten times as long. The ideal is the time that both
workers would need if the work were divided into the smallest pieces: work / 1.1. Time is measured from the first unit's
start to ``commit.json``.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

import apache_beam as beam  # noqa: E402
from apache_beam.options.pipeline_options import PipelineOptions  # noqa: E402

from beamlabel.pipeline import layout  # noqa: E402
from beamlabel.pipeline.job.commit import Commit  # noqa: E402
from beamlabel.transforms import storage  # noqa: E402
from beamlabel.transforms.inputs.sources.source import SourceOptions  # noqa: E402
from beamlabel.transforms.records import InputFile, UnitRecord, WorkUnit  # noqa: E402
from beamlabel.transforms.units.plan_units import PlanUnits  # noqa: E402
from beamlabel.transforms.units.unit_records import read_record, stage_record  # noqa: E402

SLOW = 10
IMAGES = 20_000

BLOCKING = ["--execution_mode_for_batch", "BATCH_FORCED"]
KEPT_WORKERS = ["--environment_cache_millis", "60000"]
SPECULATIVE = {
    "jobmanager.scheduler": "AdaptiveBatch",
    "execution.batch.speculative.enabled": "true",
    "slow-task-detector.check-interval": "1 s",
    "slow-task-detector.execution-time.baseline-lower-bound": "1 s",
    "slow-task-detector.execution-time.baseline-ratio": "0.5",
    "slow-task-detector.execution-time.baseline-multiplier": "1.5",
    "execution.batch.speculative.block-slow-node-duration": "0 ms",
}


class _Work(beam.DoFn):
    """A unit that sleeps and, like OpenUnit and WriteUnit, skips work that has a record."""

    def __init__(self, staging_dir: str, seconds: float, slow: str) -> None:
        self._staging_dir, self._seconds, self._slow = staging_dir, seconds, slow

    def process(self, unit: WorkUnit) -> Iterator[UnitRecord]:
        record = read_record(self._staging_dir, unit.unit_id)
        if record is None:
            begun = Path(self._staging_dir) / "begun"
            begun.mkdir(parents=True, exist_ok=True)
            (begun / f"{unit.unit_id}-{os.getppid()}-{time.time():.3f}").touch()
            rows = unit.stop - unit.start
            factor = SLOW if Path(self._slow).read_text() == str(os.getppid()) else 1
            time.sleep(rows * self._seconds * factor)
            record = UnitRecord(unit.unit_id, unit.ranges, rows, rows, {}, 0, ())
            record = stage_record(record, self._staging_dir)
        yield record


def run(scratch: Path, options: Sequence[str], seconds: float, slow: int) -> tuple[float, int]:
    """Returns the seconds from the first unit to the commit, and the number of started units."""
    staging_dir = str(scratch / "staging")
    told = scratch / "slow"
    told.write_text(str(slow))
    names = scratch / "photos.txt"
    names.write_text("".join(f"{number}.jpg\n" for number in range(IMAGES)))
    file = InputFile(str(names), "text", names.stat().st_size)
    source = SourceOptions("/")
    with beam.Pipeline(options=PipelineOptions([*options, "--pickle_library=cloudpickle"])) as pipeline:
        units = pipeline | PlanUnits([file], source, staging_dir) | beam.Reshuffle()
        work = beam.ParDo(_Work(staging_dir, seconds / IMAGES, str(told)))
        records = units | work.with_output_types(UnitRecord)
        _ = records | Commit(staging_dir=staging_dir, files=[file], limited=False)
    begun = [float(path.name.rpartition("-")[2]) for path in (scratch / "staging" / "begun").iterdir()]
    committed = json.loads(storage.read_bytes(storage.join(staging_dir, layout.COMMIT)))["committed_at"]
    return committed - min(begun), len(begun)


def main() -> None:
    from support.flink_cluster import FlinkCluster, require_flink

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--seconds", type=float, default=40, help="seconds of work for one worker (default 40)"
    )
    parser.add_argument("--only", type=lambda text: text.split(","), default=[])
    options = parser.parse_args()
    os.environ["PYTHONPATH"] = os.pathsep.join(
        filter(None, [str(Path(__file__).parent), os.environ.get("PYTHONPATH")])
    )
    require_flink()
    cases: dict[str, list[str]] = {
        "pipelined": [],
        "blocking x 4": [*BLOCKING, *KEPT_WORKERS, "--parallelism", "8"],
        "speculative": [*BLOCKING, *KEPT_WORKERS],
    }
    print(
        "| | slow worker | seconds | times ideal | units begun |\n| --- | --- | ---: | ---: | ---: |",
        flush=True,
    )
    with tempfile.TemporaryDirectory() as directory:
        for speculative in (False, True):
            chosen = {
                name: case
                for name, case in cases.items()
                if (not options.only or name in options.only) and (name == "speculative") == speculative
            }
            if not chosen:
                continue
            settings = SPECULATIVE if speculative else None
            cluster = FlinkCluster(Path(directory) / f"cluster{speculative}", settings=settings)
            try:
                for number, (name, arguments) in enumerate(chosen.items()):
                    for is_slow in (False, True):
                        scratch = Path(directory) / f"{speculative}{number}{is_slow}"
                        scratch.mkdir()
                        pid = cluster._processes[cluster.names[0]].pid if is_slow else 0
                        over = [*cluster.runner_options("PortableRunner"), *arguments]
                        cluster.wait_for_slots(2)
                        took, units = run(scratch, over, options.seconds, pid)
                        ideal = options.seconds / (1 + 1 / SLOW if is_slow else 2)
                        slow = "yes" if is_slow else "no"
                        print(f"| {name} | {slow} | {took:.1f} | {took / ideal:.2f} | {units} |", flush=True)
            finally:
                cluster.close()


if __name__ == "__main__":
    from stragglers import main as run_main  # so that workers can import the pickled classes by name

    run_main()
