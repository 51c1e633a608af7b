"""SIGKILL at many moments, each followed by ``--if_exists resume``: ``python benchmarks/kills.py``.

A server of the GCS protocol serves the photographs and counts the fetches of each. Results go to a new local directory,
to a directory with an earlier result, and to ``gs://``. Prints a table in Markdown.
"""

from __future__ import annotations

import argparse
import os
import random
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

from support.gcs_server import Bucket, GcsServer
from support.jobs import label, photos, uri_list
from support.kills import OPTIONS, Kill, kill_and_resume

# The number of kills in each phase, of 25.
PHASES = ("plan",) * 5 + ("compute",) * 11 + ("commit",) * 3 + ("publish",) * 6
WHERE = ("new", "existing", "gs")


def kills(images: int, count: int, seed: int, scratch: Path) -> Iterator[tuple[str, Kill]]:
    """Kills and resumes runs, each with its own output."""
    rng = random.Random(seed)
    server = GcsServer()
    os.environ["STORAGE_EMULATOR_HOST"] = server.url
    paths = photos(scratch / "photos", images)
    for number in range(count):
        where, phase = WHERE[number % len(WHERE)], PHASES[number % len(PHASES)]
        bucket = Bucket(server, f"bucket-{number}")
        names = [bucket.put(f"photos/{path.name}", path.read_bytes()) for path in paths]
        uris = uri_list(scratch / f"{number}.txt", names)
        output = bucket.uri("out") if where == "gs" else str(scratch / f"out{number}")
        if where != "new":
            label(output, "--input", uris, "--limit", 20, *OPTIONS[2:])
        yield where, kill_and_resume(phase, output, uris, images, bucket, rng)
    server.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=400)
    parser.add_argument("--kills", type=int, default=25)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    print("| output | killed at | images staged then | fetched twice | result read meanwhile | |")
    print("| --- | --- | ---: | ---: | ---: | --- |", flush=True)
    is_good = True
    with tempfile.TemporaryDirectory() as directory:
        os.environ["BEAMLABEL_CACHE"] = str(Path(directory) / "cache")
        for where, kill in kills(options.images, options.kills, options.seed, Path(directory)):
            verdict = "; ".join(kill.problems) or "good"
            is_good &= not kill.problems
            print(
                f"| {where} | {kill.phase} | {kill.staged} | {kill.twice} | {kill.reads} | {verdict} |",
                flush=True,
            )
    sys.exit(not is_good)


if __name__ == "__main__":
    main()
