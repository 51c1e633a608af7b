"""Progress of a run: from this process or from records and heartbeats; a bar on a terminal, otherwise lines."""

import gzip
import logging
import os
import pty
import re
import signal
import subprocess
import sys
import termios
import threading
import time

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import beamlabel.pipeline.job.progress
import beamlabel.pipeline.job.totals
import beamlabel.transforms.writing.heartbeat
from beamlabel.pipeline.job.progress import StagingDirectory, line
from beamlabel.pipeline.job.totals import references
from beamlabel.transforms.inputs.sources.source import SourceOptions
from beamlabel.transforms.records import InputFile
from beamlabel.transforms.worker import tally
from beamlabel.transforms.worker.tally import Tally
from support.jobs import TINY, label, photos, uri_list
from support.staged import staged_files
from support.threads import no_more_threads


@pytest.fixture
def uris(tmp_path):
    paths = photos(tmp_path / "photos", 40)
    paths[4].write_bytes(b"no image")
    return uri_list(tmp_path / "list.txt", paths)


def test_this_process_counts_what_becomes_of_each_reference(tmp_path, uris):
    before = tally.total()
    first = label(tmp_path / "first", "--input", uris, "--shard_rows", 7)
    assert tally.total() - before == Tally(39, 1, 0)
    before = tally.total()
    label(tmp_path / "out", "--input", uris, "--skip_labeled", first.output, "--max_error_rate", 1)
    assert tally.total() - before == Tally(0, 0, 40)


@pytest.mark.parametrize("where", ["local", "gs"])
def test_elsewhere_records_and_heartbeats_tell(tmp_path, uris, monkeypatch, gcs, where):
    """The test reads the progress after each unit of a job that writes a heartbeat at each element."""
    monkeypatch.setattr(beamlabel.transforms.writing.heartbeat.Heartbeat, "is_due", lambda self: True)
    monkeypatch.setattr("beamlabel.pipeline.runners.choose.Runner.works_in_this_process", False)
    seen, directories, real = [], [], beamlabel.transforms.writing.write_unit.stage_record

    def stage_record(record, staging_dir):
        if not directories:
            directories.append(StagingDirectory(staging_dir))
        done = real(record, staging_dir)
        seen.append(directories[0].look())
        return done

    monkeypatch.setattr(beamlabel.transforms.writing.write_unit, "stage_record", stage_record)
    output = tmp_path / "out" if where == "local" else gcs.uri("out")
    job = label(output, "--input", uris, "--shard_rows", 10, "--batch_size", 4, "--max_error_rate", 1)
    assert job.code == 0
    assert len(seen) == 4
    # A unit is written when its last image is ready, so another unit may precede that of the broken image.
    failed = [counts.failed for counts in seen]
    assert failed == sorted(failed) and failed[-1] == 1
    # Finished units count in full, open ones by their progress.
    assert [counts.done >= 10 * (place + 1) for place, counts in enumerate(seen)] == [True] * 4
    assert seen[-1] == Tally(39, 1, 0)


def test_a_heartbeat_of_a_unit_that_is_done_or_that_was_begun_twice(tmp_path):
    directory = StagingDirectory(str(tmp_path))
    (tmp_path / "progress").mkdir()
    (tmp_path / "progress" / "a.json").write_text('{"u1": [5, 1, 0], "u2": [7, 0, 0]}')
    (tmp_path / "progress" / "b.json").write_text('{"u2": [9, 0, 0]}')
    (tmp_path / "progress" / "broken.json").write_text('{"u3": 5')
    assert directory.look() == Tally(14, 1, 0)
    assert StagingDirectory(str(tmp_path / "nothing yet")).look() == Tally()


# --- totals ---


def test_totals_of_parquet_and_of_listings(tmp_path, uris):
    pq.write_table(pa.table({"uri": ["a"] * 123}), tmp_path / "in.parquet")
    assert references(InputFile(str(tmp_path / "in.parquet"), "parquet"), SourceOptions("/")) == 123
    assert references(InputFile(f"{tmp_path / 'photos'}/", "images"), SourceOptions("/")) == 40
    assert references(InputFile(str(uris), "text", uris.stat().st_size), SourceOptions("/")) == 40


@pytest.mark.parametrize("compress", [False, True])
def test_a_long_list_is_estimated(tmp_path, compress):
    text = "".join(f"gs://bucket/photos/{n:08d}.jpg\n" for n in range(100_000)).encode()
    path = tmp_path / "list"
    path.write_bytes(gzip.compress(text) if compress else text)
    assert references(InputFile(str(path), "text", path.stat().st_size), SourceOptions("/")) == pytest.approx(
        100_000, rel=0.1
    )


def test_the_line():
    assert line(Tally(11_990, 3, 7), 50_000, 410.4) == (
        "12,000 of 50,000 images (24 %), 410/s, 3 failed, 7 skipped, 0:01:33 left"
    )
    assert line(Tally(5), None, 0.0) == "5 images, 0/s"
    assert line(Tally(5), 5, 1.0) == "5 of 5 images (100 %), 1/s"


# --- shown ---


def test_lines_in_the_log(tmp_path, uris, monkeypatch, caplog):
    monkeypatch.setattr(beamlabel.pipeline.job.progress, "LINE_SECONDS", 0.05)
    monkeypatch.setattr(beamlabel.pipeline.job.progress.Source, "seconds", 0.05)
    caplog.set_level(logging.INFO, "beamlabel")
    label(tmp_path / "out", "--input", uris, "--batch_size", 2, "--max_error_rate", 1)
    lines = [record.message for record in caplog.records if re.match(r"\d+ of 40 images \(", record.message)]
    assert lines, caplog.text


def command(output, uris):
    return [
        sys.executable, "-m", "beamlabel", "--input", str(uris), "--module", TINY, "--output", str(output),
        "--max_error_rate", "1",
    ]  # fmt: skip


def test_a_bar_on_a_terminal(tmp_path, uris):
    terminal, theirs = pty.openpty()
    termios.tcsetwinsize(theirs, (24, 100))
    process = subprocess.Popen(command(tmp_path / "out", uris), stderr=theirs, stdout=theirs)
    os.close(theirs)
    shown = b""
    while True:
        try:
            chunk = os.read(terminal, 4096)
        except OSError:  # how Linux reports that the other end is closed
            break
        if not chunk:
            break
        shown += chunk
    os.close(terminal)
    assert process.wait() == 0
    text = shown.decode()
    assert re.search(r"100%\|█+\| 40/40 \[", text), text
    assert "failed=1" in text
    assert "Resource module" not in text, "a log line that is not worth showing"
    # Log lines get their own lines.
    assert re.search(r"[\r\n]INFO beamlabel: 40 input = 39 predicted", text), text


@pytest.mark.parametrize("mode", ["in_memory", "multi_processing"])
def test_ctrl_c_ends_it(tmp_path, mode):
    uris = uri_list(tmp_path / "list.txt", [str(path) for path in photos(tmp_path / "photos", 50)] * 400)
    arguments = ["--direct_running_mode", mode, "--direct_num_workers", "2"]
    process = subprocess.Popen(
        [*command(tmp_path / "out", uris), *arguments],
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    while not staged_files(tmp_path, "units/*"):
        assert process.poll() is None, process.stderr.read()
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    told = process.communicate(timeout=60)[1]
    assert process.returncode == 130, told
    assert "Cancelled by SIGINT" in told
    assert not list(tmp_path.glob("_beamlabel*/lock"))
    assert not (tmp_path / "out").exists()


# --- a storage that hangs ---


@pytest.mark.timeout(120)
@pytest.mark.parametrize("is_terminal", [False, True])
@pytest.mark.parametrize("what", ["look", "total"])
def test_a_storage_that_hangs_does_not_hold_up_the_end_of_a_run(
    tmp_path, uris, monkeypatch, is_terminal, what
):
    gate, asked = threading.Event(), threading.Event()

    def hang(*arguments):
        asked.set()
        gate.wait()
        raise OSError("at last")

    if what == "look":
        monkeypatch.setattr(StagingDirectory, "look", hang)
    else:
        monkeypatch.setattr(beamlabel.pipeline.job.totals, "references", hang)
    monkeypatch.setattr(beamlabel.pipeline.job.progress, "LINE_SECONDS", 0.01)
    for source in (beamlabel.pipeline.job.progress.Source, StagingDirectory):
        monkeypatch.setattr(source, "seconds", 0.01)
    monkeypatch.setattr(sys.stderr, "isatty", lambda: is_terminal, raising=False)
    monkeypatch.setattr("beamlabel.pipeline.runners.choose.Runner.works_in_this_process", False)
    assert label(tmp_path / "out", "--input", uris, "--max_error_rate", 1).code == 0
    assert asked.is_set()
    gate.set()


@pytest.mark.parametrize("name", ["progress", "total"])
def test_a_run_continues_if_no_thread_can_show_its_progress(tmp_path, uris, monkeypatch, name):
    with no_more_threads(monkeypatch, name):
        assert label(tmp_path / "out", "--input", uris, "--max_error_rate", 1).code == 0
