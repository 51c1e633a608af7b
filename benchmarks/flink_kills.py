"""Kills parts of a Flink cluster during a job, and writes ``benchmarks/flink_kills.md``.

    python benchmarks/flink_kills.py [--kills 20] [--images 2000] [--seed 5]

Needs ``tools/setup_flink.sh``. Each kill is a separate run. The parts take turns; the seed determines the moments.
"""

from __future__ import annotations

import argparse
import os
import platform
import random
import sys
import tempfile
from pathlib import Path

REPOSITORY = Path(__file__).parents[1]
sys.path[:0] = [str(REPOSITORY), str(REPOSITORY / "tests")]

from support.flink_cluster import cluster  # noqa: E402
from support.kill_jobs import UNIT_ROWS, VICTIMS, KillJob, Outcome, run_and_kill  # noqa: E402
from support.servers import FileServer  # noqa: E402

REPORT = REPOSITORY / "benchmarks" / "flink_kills.md"

_HEAD = """# Kills on Flink

`python benchmarks/flink_kills.py --kills {kills} --images {images} --seed {seed}`: a Flink {flink} cluster with two
TaskManagers of one slot each on {cores} cores, Beam {beam}, Python {python}. Each row is a run of {images} images
in units of {unit}. At a random moment (from the seed) a process gets SIGKILL: a TaskManager, whose worker then ends by
itself; an SDK worker; or both at once. A TaskManager is restarted, as a pod would be.

Batch Flink restarts the stage from its beginning, on both TaskManagers, and skips units with a staged record. It
repeats the work in flight: in each worker the unit that is being written, the up to 256 images that are loaded ahead,
and the batch of 128. Here these are several units; with the usual 10,000 rows they are one or two.

The images come from a server that counts requests. An image with two requests was begun twice, even if it had not
reached the model when its worker was killed; "units again" are the units with such an image. "At" is the number of
images requested before the kill; "restarts" is the number of failures that Flink recorded. "ok" means: every input row
once, bit for bit as in an undisturbed run in memory, and no other file in the output. Other programs used the machine,
so the seconds show only the order of magnitude.

| # | killed | at | restarts | units again | images again | rows | seconds to the end | ok |
| --- | --- | --- | --- | --- | --- | --- | --- | --- |
"""

_TAIL = """
Of {kills} kills, {ok} ended with every row once. A kill cost {mean_units:.1f} units and {mean_images:.0f} images on
average, {max_units} units and {max_images} images at most, which is {share:.1f} % of the job.

## What the cluster needs

By default Flink restarts no batch job. A batch job takes its restart strategy only from the configuration of the
cluster (Beam's `--number_of_execution_retries` is for streaming). This cluster had

```yaml
restart-strategy.type: fixed-delay
restart-strategy.fixed-delay.attempts: 10
restart-strategy.fixed-delay.delay: 1 s
heartbeat.interval: 2000
```

Every try fails at once until Flink notices the loss of a TaskManager, so one kill may cause several restarts. With
Flink's default heartbeat of 10 s this may take 50 s: set the delay to 10 s there.
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--images", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=5)
    arguments = parser.parse_args()
    os.environ.setdefault("BEAMLABEL_CACHE", tempfile.mkdtemp(prefix="beamlabel-kills"))
    draw = random.Random(arguments.seed)
    plan = [(VICTIMS[number % len(VICTIMS)], draw.uniform(0, 1.05)) for number in range(arguments.kills)]
    outcomes: list[Outcome | Exception] = []
    directory = Path(tempfile.mkdtemp(prefix="flink-kills"))
    server = FileServer()
    job = KillJob(directory, server, arguments.images)
    with cluster(directory / "cluster") as running:
        for number, (victim, moment) in enumerate(plan):
            running.wait_for_slots(2)
            try:
                outcomes.append(run_and_kill(job, running, directory / f"out{number}", victim, moment))
            except (AssertionError, OSError) as error:
                outcomes.append(error)
            print(number + 1, victim, f"{moment:.3f}", outcomes[-1], flush=True)
        flink = running.rest("overview")["flink-version"]
    server.close()
    REPORT.write_text(report(arguments, plan, outcomes, flink))
    sys.exit(not all(isinstance(found, Outcome) for found in outcomes))


def report(
    arguments: argparse.Namespace,
    plan: list[tuple[str, float]],
    outcomes: list[Outcome | Exception],
    flink: str,
) -> str:
    import apache_beam

    lines = []
    for number, ((victim, moment), found) in enumerate(zip(plan, outcomes, strict=True), start=1):
        if isinstance(found, Outcome):
            numbers = (found.moment, found.restarts, found.units_again, found.images_again, found.rows)
            cells = [victim, *map(str, numbers), f"{found.seconds:.0f}", "yes"]
        else:
            cells = [victim, f"{moment * arguments.images:.0f}", *["-"] * 5, "**no**"]
        lines.append(f"| {number} | {' | '.join(cells)} |\n")
    good = [found for found in outcomes if isinstance(found, Outcome)] or [Outcome("", 0, 0, 0, 0, 0, 0)]
    images = [found.images_again for found in good]
    units = [found.units_again for found in good]
    head = _HEAD.format(
        **vars(arguments), flink=flink, cores=os.cpu_count(), beam=apache_beam.__version__,
        python=platform.python_version(), unit=UNIT_ROWS,
    )  # fmt: skip
    tail = _TAIL.format(
        **vars(arguments), ok=sum(isinstance(found, Outcome) for found in outcomes),
        mean_units=sum(units) / len(good), mean_images=sum(images) / len(good), max_units=max(units),
        max_images=max(images), share=100 * max(images) / arguments.images,
    )  # fmt: skip
    return head + "".join(lines) + tail


if __name__ == "__main__":
    main()
