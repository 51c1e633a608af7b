"""``LabelImages`` in a pipeline compared with the command: ``python benchmarks/embedded.py --module HANDLE``.

The rate excludes start-up: it is the difference between a run over ``--images`` images and one over a tenth of them.
All forms take turns, for several rounds.
"""

from __future__ import annotations

import argparse
import os
import platform
import statistics
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

from jobs import label, run
from photos import photographs, write_list

COMMAND = "command"


class Rate(NamedTuple):
    """Rate of a long run: images a second, and milliseconds of CPU an image."""

    images_per_second: float
    cpu_ms: float


class Photo(NamedTuple):
    """A row with a schema."""

    uri: str
    customer: int


def pipeline(form: str, uris: Path, count: int, module: str) -> None:
    """Runs ``uris | LabelImages | count`` in this process; raises if a row is missing."""
    import apache_beam as beam
    from apache_beam.runners.portability.fn_api_runner import FnApiRunner
    from apache_beam.testing.util import assert_that, equal_to

    from beamlabel import LabelImages

    listed = uris.read_text().splitlines()[:count]
    makers = {
        "uris": lambda number, uri: uri,
        "dicts": lambda number, uri: {"uri": uri, "customer": number},
        "rows": lambda number, uri: Photo(uri, number),
        "rows, encoded": lambda number, uri: Photo(uri, number),
    }
    elements = [makers[form](number, uri) for number, uri in enumerate(listed)]
    with beam.Pipeline(runner=FnApiRunner()) as p:
        predictions = (p | beam.Create(elements) | LabelImages(module)).predictions
        if form == "rows, encoded":
            predictions |= beam.Reshuffle()
        assert_that(predictions | beam.combiners.Count.Globally(), equal_to([count]))


FORMS = ("uris", "dicts", "rows", "rows, encoded")


def rate(form: str, uris: Path, few: int, many: int, module: str, scratch: Path) -> Rate:
    """Measures a short and a long run; returns the rate and cost of the images between them."""
    costs = []
    for count in (few, many):
        if form == COMMAND:
            costs.append(label(uris, count, scratch, ["--module", module]))
        else:
            child = [sys.executable, __file__, "--form", form, "--uris", str(uris), "--images", str(count)]
            costs.append(run([*child, "--module", module], scratch))
    short, long = costs
    return Rate(
        (many - few) / (long.seconds - short.seconds),
        (long.cpu_seconds - short.cpu_seconds) / (many - few) * 1e3,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--module", required=True, metavar="HANDLE")
    parser.add_argument("--images", type=int, default=4000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument(
        "--photographs", type=Path, metavar="DIR", help="directory that keeps them for the next run"
    )
    parser.add_argument("--form", choices=FORMS, help=argparse.SUPPRESS)
    parser.add_argument("--uris", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.form:
        pipeline(options.form, options.uris, options.images, options.module)
        return
    print(f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}")
    with tempfile.TemporaryDirectory() as directory:
        scratch = Path(directory)
        images = photographs(options.photographs or scratch, options.images)
        uris = write_list(scratch / "uris.txt", images, options.images)
        few = max(options.images // 10, 1)
        arguments = (uris, few, options.images, options.module, scratch)
        rate(COMMAND, *arguments)  # fills the caches
        rounds = []
        for number in range(options.rounds):
            order = (COMMAND, *FORMS)[:: 1 if number % 2 == 0 else -1]
            rounds.append({form: rate(form, *arguments) for form in order})
    for form in (COMMAND, *FORMS):
        found = [each[form] for each in rounds]
        shares = [each[form].images_per_second / each[COMMAND].images_per_second for each in rounds]
        cpu = [each[COMMAND].cpu_ms / each[form].cpu_ms for each in rounds]
        print(
            f"{form:14} {statistics.median(r.images_per_second for r in found):7.1f} images/s, "
            f"{statistics.median(r.cpu_ms for r in found):5.2f} ms of CPU; as a share of the command: rate "
            f"{statistics.median(shares):.3f} ({min(shares):.3f}-{max(shares):.3f}), 1 / CPU "
            f"{statistics.median(cpu):.3f} ({min(cpu):.3f}-{max(cpu):.3f})"
        )


if __name__ == "__main__":
    main()
