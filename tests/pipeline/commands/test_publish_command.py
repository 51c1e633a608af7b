"""``beamlabel publish``: another process publishes the output of a committed run."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from beamlabel.pipeline.commands.publish import publish_committed
from beamlabel.pipeline.process import exit as exit_codes
from support.jobs import label, photos, uri_list


def publish(output: Path) -> tuple[int, str]:
    command = [sys.executable, "-m", "beamlabel", "publish", str(output)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return done.returncode, done.stderr


@pytest.fixture
def committed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The output of a committed run whose launcher was killed before it could publish."""
    uris = uri_list(tmp_path / "in.txt", [*photos(tmp_path / "photos", 3), "missing.jpg"])
    with monkeypatch.context() as patch:
        patch.setattr("beamlabel.pipeline.output.publish.publish", lambda output, staging: sys.exit("gone"))
        with pytest.raises(SystemExit, match="gone"):
            label(tmp_path / "out", "--input", uris, "--max_error_rate=1")
    return tmp_path / "out"


def test_a_committed_run_is_published_once(committed: Path) -> None:
    code, told = publish(committed)
    assert code == 0
    assert "4 input = 3 predicted + 1 failed + 0 skipped" in told
    manifest = json.loads((committed / "_MANIFEST.json").read_text())
    assert (committed / "_SUCCESS").exists()
    assert sorted(path.name for path in committed.iterdir() if path.name[0] != "_") == [
        file["name"] for file in manifest["files"] if file["kind"] == "data"
    ]
    assert not list(committed.parent.glob("_beamlabel*"))

    assert publish(committed) == (0, f"beamlabel publish: {committed} is published\n")
    assert json.loads((committed / "_MANIFEST.json").read_text()) == manifest


def test_too_many_failures_are_reported_later_too(committed: Path) -> None:
    job = next(committed.parent.glob("_beamlabel*/staging/*/job.json"))
    facts = json.loads(job.read_text())
    facts["max_error_rate"] = facts["manifest"]["options"]["max_error_rate"] = 0.1
    facts["min_failures"] = facts["manifest"]["options"]["min_failures"] = 1
    job.write_text(json.dumps(facts))
    assert publish_committed(str(committed)) == exit_codes.TOO_MANY_FAILURES
    assert not (committed / "_SUCCESS").exists()


def test_nothing_is_committed_yet(committed: Path) -> None:
    next(committed.parent.glob("_beamlabel*/staging/*/commit.json")).unlink()
    code, told = publish(committed)
    assert code == 75
    assert "nothing is committed yet" in told
    assert next(committed.parent.glob("_beamlabel*/staging/*/job.json")), "the run may still be in progress"


def test_no_run_was_there(tmp_path: Path) -> None:
    code, told = publish(tmp_path / "nowhere")
    assert code == 2
    assert "no run of beamlabel" in told


def test_usage() -> None:
    done = subprocess.run([sys.executable, "-m", "beamlabel", "publish"], capture_output=True, text=True)
    assert done.returncode == 2
    assert "beamlabel: error: the following arguments are required: OUTPUT" in done.stderr
