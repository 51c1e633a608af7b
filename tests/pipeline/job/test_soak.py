"""Faults and kills together: every reference gets a row or a reason; ``benchmarks/soak.py`` runs longer."""

import json
import math
import random

import pyarrow.parquet as pq
import pytest

from beamlabel.pipeline import layout
from support.faulty_references import FAULTS, References
from support.jobs import TINY, label, photos, uri_list
from support.kills import staged_images
from support.soak import GROUP, WORKER, Launches, Soak
from support.soaked_rows import Truth, check_rows, read_rows

IMAGES, PHOTOS, UNIT = 200, 20, 10
# The number of requests before each kill; it then waits for the first staged unit.
REQUESTS = 25


@pytest.fixture
def references(tmp_path):
    references = References(tmp_path / "images", photos(tmp_path / "photos", PHOTOS), slow=False)
    yield references
    references.close()


@pytest.fixture
def truth(tmp_path, references):
    job = label(tmp_path / "truth", "--input", uri_list(tmp_path / "truth.txt", references.photos))
    return Truth(job.output, PHOTOS)


def test_faults_and_kills_lose_nothing(tmp_path, references, truth):
    drawn = references.draw(IMAGES, 0.2, random.Random(20))
    assert {one.fault for one in drawn} == {"", *(fault.name for fault in FAULTS if not fault.is_slow)}
    launches = Launches(
        tmp_path / "out",
        drawn,
        ("--module", TINY, "--shard_rows", UNIT, "--batch_size", 16),
        tmp_path / "logs",
    )
    kills = [GROUP, WORKER]
    server, enough = references.server, REQUESTS
    server.allow(enough)

    def due():
        """Requests wait for the kill, so that it hits in the middle."""
        nonlocal enough
        if not kills or server.requests < enough:
            return None
        if not staged_images(str(launches.output)):
            # Each unit may have a request that waits: without this, none would ever be staged.
            server.allow(server.allowed + 1)
            return None
        enough = server.requests + REQUESTS if len(kills) > 1 else math.inf
        server.allow(enough)
        return kills.pop()

    soak = Soak()
    try:
        is_done = soak.run(launches, due, lambda: 2)
    finally:
        launches.end()
    assert is_done and not soak.problems
    assert soak.kills == {GROUP: 1, WORKER: 1}
    outcome = check_rows(launches.output, drawn, truth)
    assert not outcome.problems
    assert (outcome.lost, outcome.doubled, outcome.wrong_reasons, outcome.wrong_rows) == (0, 0, 0, 0)
    assert outcome.failed == sum(one.reason is not None for one in drawn) > 20
    assert json.loads((launches.output / layout.MANIFEST).read_text())["resumed_units"] > 0
    # Damage is found.
    table, failures = read_rows(launches.output)
    assert (table.num_rows, len(failures)) == (outcome.predicted, outcome.failed)
    drawn[0], drawn[1] = drawn[1], drawn[0]
    swapped = check_rows(launches.output, drawn, truth)
    assert swapped.problems and swapped.wrong_reasons + swapped.wrong_rows > 0
    part = next(
        path for path in sorted(launches.output.glob("part-*")) if pq.read_metadata(path).num_rows > 1
    )
    rows = pq.read_table(part)
    pq.write_table(rows.slice(1), part)
    assert check_rows(launches.output, drawn, truth).lost == 1
