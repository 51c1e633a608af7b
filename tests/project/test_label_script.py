"""``deploy/nightly/label.sh``: retries by exit code, its end by a signal, and one real run."""

import os
import signal
import subprocess
import sys
import time
from datetime import datetime, timedelta, timezone

import pytest

from beamlabel.pipeline.options.parser import parse
from beamlabel.pipeline.output import lock
from beamlabel.pipeline.process import exit as exit_codes
from support.jobs import TINY, FinishedJob, photos
from support.nightly_deployment import LABEL, Standin


@pytest.fixture
def standin(tmp_path):
    return Standin(tmp_path)


@pytest.mark.parametrize(
    ("codes", "runs", "code"),
    [
        ("0", 1, 0),
        ("1", 1, exit_codes.TOO_MANY_FAILURES),
        ("2", 1, exit_codes.USAGE),
        ("3,0", 2, 0),
        ("4,0", 2, 0),
        ("4,4,4,4", 3, exit_codes.OUT_OF_TIME),
        ("3,4,3,0", 3, exit_codes.BROKEN),
        ("3,1,0", 2, exit_codes.TOO_MANY_FAILURES),
        ("137,0", 2, 0),
        ("130,0", 1, 130),
        ("143,0", 1, 143),
        ("75,75,75,75,0", 5, 0),
        ("75,3,75,3,75,0", 6, 0),
    ],
)
def test_only_promising_errors_are_tried_again(standin, codes, runs, code):
    assert standin.label(codes) == code
    assert len(standin.runs) == runs


def test_a_lock_is_waited_for_as_long_as_patience_lasts(standin):
    assert standin.label("75", WAIT=1, PATIENCE=2) == exit_codes.NOT_YET
    assert len(standin.runs) == 3


def test_tries_have_one_date_and_keep_finished_units(standin):
    before = datetime.now(timezone.utc).date()
    standin.label("--input", "a b", "3")
    first, *others = standin.runs
    assert others == [first, first]
    *ours, name, value, _ = first
    assert [name, value] == ["--input", "a b"]
    assert ours[::2] == ["--run_date", "--if_exists"] and ours[3] == "resume"
    assert before <= datetime.fromisoformat(ours[1]).date() <= before + timedelta(days=1)


def test_what_is_given_goes_before_what_the_script_would_say(standin):
    given = ["--module=m", "--input=i", "--run_date=2026-01-31", "--if_exists=error", "--output", "dt={date}"]
    standin.label(*given, "0")
    options, _ = parse(standin.runs[0][:-1])
    assert (options.output.output, options.run.if_exists) == ("dt=2026-01-31", "error")


@pytest.mark.parametrize(("sent", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
@pytest.mark.parametrize("when", ["at work", "between two tries"])
def test_a_signal_ends_the_run_and_no_other_begins(tmp_path, sent, code, when):
    path = tmp_path / "beamlabel"
    end = "sys.exit(3)" if when == "between two tries" else "signal.pause()"
    path.write_text(
        f"#!{sys.executable} -S\nimport signal, sys\n"
        "def end(number, frame):\n    print('cancelled', flush=True)\n    sys.exit(128 + number)\n"
        "signal.signal(signal.SIGINT, end)\nsignal.signal(signal.SIGTERM, end)\n"
        f"print('ready', flush=True)\n{end}\n"
    )
    path.chmod(0o755)
    process = subprocess.Popen(
        [LABEL],
        env={**os.environ, "BEAMLABEL": str(path), "WAIT": "600"},
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stdout.readline() == "ready\n"
    if when == "between two tries":
        assert "again in 600 s" in process.stderr.readline()
        time.sleep(0.2)
    process.send_signal(sent)
    assert process.communicate(timeout=60)[0] == ("cancelled\n" if when == "at work" else "")
    assert process.returncode == code


def test_it_labels(tmp_path):
    """A real run: the first try finds the output locked, the second one labels."""
    photos(tmp_path / "photos", 3)
    beamlabel = tmp_path / "beamlabel"
    beamlabel.write_text(f'#!/bin/bash\nexec {sys.executable} -m beamlabel "$@"\n')
    beamlabel.chmod(0o755)
    output = tmp_path / "labels" / "dt={date}"
    command = [LABEL, "--input", f"{tmp_path}/photos/", "--input_format", "images", "--module", TINY]
    environment = {**os.environ, "BEAMLABEL": str(beamlabel), "WAIT": "1"}
    published = tmp_path / "labels" / "dt=2026-11-23"
    with lock.locked(str(published)):
        process = subprocess.Popen(
            [*command, "--output", str(output), "--run_date", "2026-11-23"],
            env=environment, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        for line in process.stderr:
            if "exit code 75; again in 1 s" in line:
                break
    process.communicate(timeout=120)
    assert process.returncode == 0
    job = FinishedJob(0, published)
    assert job.manifest["rows"]["predicted"] == 3 and job.succeeded
