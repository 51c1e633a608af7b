"""The part of a night's report that compares it with the previous night."""

import shutil
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from beamlabel.pipeline.commands.report import make_report
from beamlabel.pipeline.report.data import data_of_page
from support.gcs_server import Bucket
from support.jobs import FinishedJob, label, photos


@pytest.fixture(scope="module", autouse=True)
def _real_time():
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("SOURCE_DATE_EPOCH", raising=False)
        yield


def night(directory: Path, date: str, *arguments, skips: bool = True) -> FinishedJob:
    source = (
        "--input",
        directory / "photos/*.png",
        "--input_format",
        "images",
        "--max_error_rate",
        "1",
        "--run_date",
        date,
    )
    skip = ("--skip_labeled", f"{directory}/labels/dt=*/", "--changed") if skips else ()
    job = label(directory / "labels" / "dt={date}", *source, *skip, *arguments)
    job = FinishedJob(job.code, directory / "labels" / f"dt={date}")
    assert job.code == 0
    return job


def before(job: FinishedJob) -> dict | None:
    data = data_of_page((job.output / "_report.html").read_text())
    assert data is not None
    return data["before"]


@pytest.fixture(scope="module")
def nights(tmp_path_factory) -> list[FinishedJob]:
    directory = tmp_path_factory.mktemp("nights")
    paths = photos(directory / "photos", 20)
    for path in paths[:3]:
        path.write_bytes(b"<html>")
    jobs = [night(directory, "2026-01-01", "--report")]
    more = photos(directory / "more", 30)
    shutil.copy(more[0], paths[0])
    for path in more[20:]:
        path.rename(directory / "photos" / path.name)
    (directory / "photos" / "photo 029.png").write_bytes(b"<html>")
    jobs.append(night(directory, "2026-01-02", "--report"))
    return jobs


def test_the_first_night_has_none(nights):
    assert before(nights[0]) is None


def test_the_night_before(nights):
    first, second = nights
    found = before(second)
    assert found is not None
    assert found["output"] == str(first.output)
    assert found["rows"] == first.manifest["rows"] and found["error_rate"] == first.manifest["error_rate"]
    assert found["same_module"] and found["has_report"]
    went = sum(row["uri"].endswith("photo 000.png") for row in second.rows)
    assert found["failures"] == {"came": 1, "again": len(second.failures) - 1, "went": went} and went == 1
    counts = [Counter(f"class {row['class_ids'][0]}" for row in job.rows) for job in nights]
    told = {one["label"]: (one["a"], one["b"]) for one in found["label_drift"]["labels"]}
    assert told == {name: (counts[0][name], counts[1][name]) for name in told}
    means = [np.mean([row["embedding"] for row in job.rows], axis=0) for job in nights]
    assert found["embedding_drift"]["l2_distance"] == pytest.approx(
        np.linalg.norm(means[0] - means[1]), rel=1e-3
    )


def test_made_later_it_is_the_same(nights):
    page = (nights[1].output / "_report.html").read_text()
    assert make_report(str(nights[1].output)) == 0
    assert (nights[1].output / "_report.html").read_text() == page


def test_a_night_without_a_report_gives_its_counts(nights, tmp_path):
    shutil.copytree(nights[0].output.parents[1] / "photos", tmp_path / "photos")
    night(tmp_path, "2026-01-01")
    night(tmp_path, "2026-01-02")
    found = before(night(tmp_path, "2026-01-03", "--report", "--crop", "0.5", skips=False))
    assert found is not None, "the date in the output's path gives the place of previous nights"
    assert found["output"].endswith("dt=2026-01-02")
    assert found["has_report"] is False and found["same_module"] is False
    assert found["label_drift"] is None and found["embedding_drift"] is None


def test_a_run_that_is_no_night_has_none(nights, tmp_path):
    job = label(tmp_path / "out", "--input", nights[0].output.parents[1] / "photos/*.png", "--input_format", "images",
                "--report", "--max_error_rate", "1")  # fmt: skip
    assert before(job) is None


def test_a_bucket(gcs: Bucket, tmp_path):
    for number, path in enumerate(photos(tmp_path, 4)):
        gcs.put(f"photos/{number}.png", path.read_bytes())
    for date in ("2026-01-01", "2026-01-02"):
        arguments = (
            "--input",
            gcs.uri("photos/"),
            "--input_format",
            "images",
            "--report",
            "--run_date",
            date,
        )
        assert label(gcs.uri("labels/dt={date}"), *arguments).code == 0
    data = data_of_page(gcs.get("labels/dt=2026-01-02/_report.html").decode())
    assert data is not None and data["before"]["output"] == gcs.uri("labels/dt=2026-01-01")
    assert data["before"]["embedding_drift"]["l2_distance"] == 0
