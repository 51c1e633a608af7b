"""A worker with other versions stops before it reads anything, and names both versions."""

import pickle
import re
import shutil
import sys
from pathlib import Path

import pytest

from beamlabel import __version__
from beamlabel.transforms.worker.versions import SameVersionsCoder, VersionError, _checked_coder, versions
from support.jobs import TINY, photos, uri_list
from support.runner_jobs import ROOT, Run, run_command
from support.servers import FileServer
from support.worker_pools import worker_pool

REMOTE = ("--runner", "PortableRunner", "--job_endpoint", "embed", "--environment_type", "EXTERNAL")
PYTHON = f"{sys.version_info.major}.{sys.version_info.minor}"


def install(directory: Path, version: str) -> Path:
    """Installs the project as on a worker, with its version or with another version and other names."""
    package = directory / "beamlabel"
    shutil.copytree(ROOT / "beamlabel", package)
    if version != __version__:
        edit(package / "__init__.py", re.escape(__version__), version)
        edit(package / "transforms" / "units" / "plan_units.py", "_PlanUnitsDoFn", "_CutDoFn")
        edit(package / "transforms" / "units" / "open_unit.py", "_OpenUnitDoFn", "_UnpackDoFn")
    return directory


def edit(path: Path, old: str, new: str) -> None:
    text, times = re.subn(old, new, path.read_text())
    assert times
    path.write_text(text)


@pytest.fixture
def remote_job(http_server: FileServer, tmp_path: Path):
    """Runs a job whose workers use the packages in a directory and whose images a server counts."""
    for number, path in enumerate(photos(tmp_path / "photos", 4)):
        http_server.files[f"/{number}.png"] = path.read_bytes()
    uris = uri_list(tmp_path / "list.txt", [http_server.url_of(path) for path in http_server.files])
    arguments = ("--module", TINY, "--input", uris, "--allow_http", "--allow_private_hosts")

    def run(installed: Path) -> Run:
        with worker_pool(installed, tmp_path) as address:
            return run_command(
                tmp_path / "out", *arguments, *REMOTE, "--environment_config", address, "--max_error_rate", 0
            )

    return run


def test_a_worker_of_the_same_version(remote_job, tmp_path):
    job = remote_job(install(tmp_path / "worker", __version__))
    assert job.code == 0, job.log
    assert job.manifest["rows"]["predicted"] == 4


def test_a_worker_of_another_beamlabel(remote_job, tmp_path, http_server):
    job = remote_job(install(tmp_path / "worker", "99.1"))
    assert job.code == 3
    beam = versions().beam
    assert (
        f"This worker has beamlabel 99.1, Apache Beam {beam} and Python {PYTHON}, "
        f"but the launcher has beamlabel {__version__}, Apache Beam {beam} and Python {PYTHON}"
    ) in job.log
    assert not http_server.requests
    assert not [*tmp_path.glob("_beamlabel*/staging/*/units/*")]


def test_a_worker_of_another_beam_is_refused_by_beam(remote_job, tmp_path, http_server):
    worker = install(tmp_path / "worker", __version__)
    # No second Beam is installed here, so this one reports another version.
    (worker / "sitecustomize.py").write_text("import apache_beam.version as v; v.__version__ = '2.99.0'\n")
    job = remote_job(worker)
    assert job.code == 3
    assert f"python{PYTHON}_sdk:{versions().beam}" in job.log and f"python{PYTHON}_sdk:2.99.0" in job.log
    assert not http_server.requests


@pytest.mark.parametrize("part", range(3))
def test_each_version_is_compared(part):
    ours = [versions().beamlabel, versions().beam, versions().python]
    assert _checked_coder(*ours) == SameVersionsCoder()
    theirs = [*ours[:part], "0.0.1", *ours[part + 1 :]]
    with pytest.raises(VersionError) as caught:
        _checked_coder(*theirs)
    for text in (*ours, "0.0.1"):
        assert text in str(caught.value)


def test_the_coder_carries_any_object():
    coder = pickle.loads(pickle.dumps(SameVersionsCoder()))
    for value in (versions(), b"bytes", ["list", None]):
        assert coder.decode(coder.encode(value)) == value
