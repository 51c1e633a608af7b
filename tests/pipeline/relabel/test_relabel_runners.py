"""``beamlabel relabel`` with workers in other processes gives the same rows as in this process."""

import pytest

from support import needs
from support.jobs import FinishedJob, command, relabel
from support.runner_jobs import PRISM


@pytest.mark.parametrize("runner", ["multi_processing", "prism"])
def test_the_same_rows_by_other_processes(runner, modules, labeled, tmp_path):
    options = ("--direct_running_mode", "multi_processing", "--direct_num_workers", 2)
    if runner == "prism":
        if not PRISM.exists():
            needs.lacking("no Prism; tools/setup_prism.sh builds it if Go is installed")
        options = ("--runner", "PrismRunner", "--prism_location", PRISM)
    here = relabel(tmp_path / "here", labeled.nights, "--shard_rows", 7, module=modules.own)
    words = (
        "relabel",
        labeled.nights,
        "--module",
        modules.own,
        "--output",
        tmp_path / "there",
        "--shard_rows",
        7,
    )
    done = command(*words, *options)
    assert done.returncode == 0, done.stderr
    there = FinishedJob(done.returncode, tmp_path / "there")
    assert there.manifest["rows"] == here.manifest["rows"]
    assert there.table.equals(here.table)
