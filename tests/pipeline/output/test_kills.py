"""SIGKILL of the whole process group, followed by ``--if_exists resume``; ``benchmarks/kills.py`` tries 25 moments."""

import random

import pytest

from support.jobs import label, photos, uri_list
from support.kills import OPTIONS, PHASES, kill_and_resume

IMAGES = 160


@pytest.fixture
def uris(tmp_path, gcs):
    paths = photos(tmp_path / "photos", IMAGES)
    return uri_list(
        tmp_path / "list.txt", [gcs.put(f"photos/{path.name}", path.read_bytes()) for path in paths]
    )


@pytest.mark.parametrize("phase", PHASES)
@pytest.mark.parametrize("where", ["new", "existing", "gs"])
def test_a_killed_run_is_resumed(tmp_path, gcs, uris, where, phase):
    output = gcs.uri("out") if where == "gs" else str(tmp_path / "out")
    if where != "new":
        label(output, "--input", uris, "--limit", 20, *OPTIONS[2:])
    kill = kill_and_resume(phase, output, uris, IMAGES, gcs, random.Random(f"{where} {phase}"))
    assert not kill.problems
    assert kill.twice <= IMAGES - kill.staged
    assert kill.reads or where == "new"
