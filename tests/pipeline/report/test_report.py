"""``--report`` and ``beamlabel report``: the page agrees with the rows for any content."""

import base64
import io
import json
import math
import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from beamlabel.pipeline.commands.report import make_report
from beamlabel.pipeline.errors import UsageError
from beamlabel.pipeline.output.publish import publish
from beamlabel.pipeline.report.data import data_of_page, report_data, timeline
from beamlabel.pipeline.report.page import page
from beamlabel.pipeline.report.summaries import published_summaries
from beamlabel.transforms import storage
from beamlabel.transforms.decoding.decode import DecodeOptions, decode
from beamlabel.transforms.decoding.thumbnail import MAX_BYTES
from beamlabel.transforms.writing.unit_summary import MAX_LABEL, SampledRow, UnitSummary
from support.gcs_server import Bucket
from support.jobs import TINY_FEATURES, FinishedJob, label, photos, uri_list
from support.servers import FileServer

HOSTILE = "</script><script>window.pwned=1</script><img src=x onerror=window.pwned=2>"


def shown(job: FinishedJob) -> dict:
    """The data in a run's page."""
    data = data_of_page((job.output / "_report.html").read_text())
    assert data is not None
    return data


def sample(job: FinishedJob) -> list[dict]:
    """The sampled rows without their links, which are relative to the output."""
    return [{**row, "link": None} for row in shown(job)["sample"]]


def names_file(path: Path, names) -> Path:
    path.write_text("".join(f"{name}\n" for name in names))
    return path


@pytest.fixture(scope="module")
def ran(tmp_path_factory) -> FinishedJob:
    """A run with a report over 300 photographs in five units, of which some are missing or broken."""
    directory = tmp_path_factory.mktemp("report")
    paths = photos(directory / "photos", 300)
    paths[7].write_bytes(b"<html>")
    uris: list = list(paths)
    for place in (3, 50, 90, 130, 290):
        uris.insert(place, f"missing {place}.jpg")
    labels = names_file(directory / "labels.txt", [f"name {number}" for number in range(11)])
    inputs = uri_list(directory / "list.txt", uris)
    job = label(directory / "out", "--input", inputs, "--labels", labels, "--report", "--shard_rows", 64)
    assert job.code == 0
    return job


def test_the_counts_are_the_runs(ran):
    data, manifest = shown(ran), ran.manifest
    assert data["rows"] == manifest["rows"] == {"input": 305, "predicted": 299, "failed": 6, "skipped": 0}
    assert data["run"]["id"] == manifest["run_id"]
    assert data["run"]["within_error_rate"] is True
    counted = Counter(row["label"] for row in ran.rows)
    assert data["labels"] == {
        "shown": [list(item) for item in sorted(counted.items(), key=lambda item: (-item[1], item[0]))],
        "others": 0,
        "rows_of_others": 0,
    }


def test_the_score_histogram_is_that_of_the_rows(ran):
    scores = ran.table["score"].to_numpy()
    counts, _ = np.histogram(scores, bins=32, range=(0, 1))
    assert shown(ran)["scores"] == {"low": 0, "width": 1 / 32, "counts": counts.tolist()}


def test_failures_have_their_first_examples(ran):
    missing, html = shown(ran)["failures"]
    assert (missing["reason"], missing["count"]) == ("not_found", 5)
    assert [example["uri"] for example in missing["examples"]] == [f"missing {n}.jpg" for n in (3, 50, 90)]
    assert (html["reason"], html["count"], len(html["examples"])) == ("not_an_image", 1, 1)
    rows = {failure["ref_id"]: failure for failure in ran.failures}
    for example in missing["examples"] + html["examples"]:
        assert example["detail"] == rows[example["ref_id"]]["detail"]


def test_samples_are_what_they_are_called(ran):
    data = shown(ran)
    rows = {row["ref_id"]: row for row in ran.rows}
    assert 24 <= len(data["sample"]) <= 144
    assert len({row["ref_id"] for row in data["sample"]}) == len(data["sample"])
    for row in data["sample"]:
        of_output = rows[row["ref_id"]]
        assert row["uri"] == of_output["uri"]
        assert row["labels"] == of_output["labels"]
        assert row["scores"] == pytest.approx(of_output["scores"], rel=1e-3)
    best: dict = {}
    for row in sorted(rows.values(), key=lambda row: (-row["score"], row["ref_id"])):
        best.setdefault(row["label"], row["ref_id"])
    tops = {row["ref_id"] for row in data["sample"] if "top" in row["kinds"]}
    assert tops >= set(best.values())
    least = min(rows.values(), key=lambda row: row["score"])["ref_id"]
    assert least in {row["ref_id"] for row in data["sample"] if "uncertain" in row["kinds"]}
    assert sum("random" in row["kinds"] for row in data["sample"]) > 10


def test_thumbnails_are_the_modules_pixels(ran):
    for row in shown(ran)["sample"][:20]:
        picture = Image.open(io.BytesIO(base64.b64decode(row["thumbnail"])))
        assert (picture.format, picture.size) == ("JPEG", (32, 32))
        pixels = decode(Path(row["uri"]).read_bytes(), DecodeOptions(32, 32)).pixels
        difference = np.asarray(picture, np.int16) - pixels
        assert np.abs(difference).mean() < 20, "noise does not survive JPEG whole"


def test_the_throughput_accounts_for_every_row(ran):
    line = shown(ran)["timeline"]
    assert sum(line["counts"]) == pytest.approx(305, abs=0.5)
    assert line["before"] == 0
    assert line["bin_seconds"] * len(line["counts"]) == pytest.approx(ran.manifest["seconds"], abs=0.01)


def test_made_later_it_is_the_same(ran, tmp_path):
    before = (ran.output / "_report.html").read_text()
    assert make_report(str(ran.output)) == 0
    assert (ran.output / "_report.html").read_text() == before, "with the thumbnails that the page had"
    (ran.output / "_report.html").unlink()
    command = [sys.executable, "-m", "beamlabel", "report", str(ran.output)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "without a thumbnail; --fetch fetches them" in done.stderr
    without = shown(ran)
    assert {row["thumbnail"] for row in without["sample"]} == {None}
    assert make_report(str(ran.output), fetch=True) == 0
    assert (ran.output / "_report.html").read_text() == before


def test_shards_are_the_same_with_and_without(ran, tmp_path):
    options = ran.manifest["options"]
    arguments = ["--input", *options["input"], "--labels", options["labels"], "--shard_rows", 64]
    without = label(tmp_path / "out", *arguments)
    assert not (without.output / "_report.html").exists()
    digests = [[file["sha256"] for file in job.manifest["files"]] for job in (ran, without)]
    assert digests[0] == digests[1]
    assert {file["kind"] for file in ran.manifest["files"]} == {"data", "failures"}
    again = label(tmp_path / "again", *arguments, "--report")
    assert sample(again) == sample(ran)


@pytest.mark.parametrize("rows", [100, 1000])
def test_the_sample_does_not_depend_on_the_units(ran, rows, tmp_path):
    options = ran.manifest["options"]
    arguments = [
        "--input",
        *options["input"],
        "--labels",
        options["labels"],
        "--report",
        "--shard_rows",
        rows,
    ]
    assert sample(label(tmp_path / "out", *arguments)) == sample(ran)


def test_the_directory_still_reads_as_one_table(ran):
    assert ran.table.num_rows == 299
    assert not list(ran.output.parent.glob("_beamlabel*"))


def test_an_overwritten_page_is_not_left_to_another_run(tmp_path):
    uris = uri_list(tmp_path / "list.txt", photos(tmp_path / "photos", 2))
    first = label(tmp_path / "out", "--input", uris, "--report")
    assert (first.output / "_report.html").exists()
    second = label(tmp_path / "out", "--input", uris, "--if_exists", "overwrite")
    assert second.code == 0
    assert not (second.output / "_report.html").exists()


def test_foreign_text_is_escaped(tmp_path):
    hostile = tmp_path / HOSTILE.replace("/", "∕")
    photos(tmp_path, 1)[0].rename(f"{hostile}.png")
    labels = names_file(tmp_path / "labels.txt", [f"{number}{HOSTILE}" for number in range(11)])
    uris = uri_list(tmp_path / "list.txt", [f"{hostile}.png", HOSTILE])
    job = label(
        tmp_path / HOSTILE[:8] / "out", "--input", uris, "--labels", labels, "--report", "--max_error_rate=1"
    )
    assert job.code == 0
    text = (job.output / "_report.html").read_text()
    assert text.count("<script") == 2
    assert text.count("</script>") == 2
    assert "<img" not in text
    data = shown(job)
    assert HOSTILE in data["sample"][0]["labels"][0]
    assert data["failures"][0]["examples"][0]["uri"] == HOSTILE


def test_nothing_is_loaded_from_anywhere(ran):
    text = (ran.output / "_report.html").read_text()
    head = text.split('<script id="data"')[0]
    assert "default-src 'none'" in head
    assert "http://" not in head and "https://" not in head and "url(" not in head
    assert "'unsafe-inline'" not in head


def test_a_module_without_logits_has_a_random_sheet(tmp_path):
    uris = uri_list(tmp_path / "list.txt", photos(tmp_path / "photos", 40))
    job = label(tmp_path / "out", "--input", uris, "--report", module=TINY_FEATURES)
    data = shown(job)
    assert data["labels"]["shown"] == [] and data["scores"] is None
    assert {kind for row in data["sample"] for kind in row["kinds"]} == {"random"}
    assert all(row["thumbnail"] and not row["labels"] for row in data["sample"])
    before = (job.output / "_report.html").read_text()
    assert make_report(str(job.output)) == 0
    assert (job.output / "_report.html").read_text() == before


@pytest.mark.parametrize("compression", ["none", "gzip"])
def test_tfrecords_without_class_names(compression, tmp_path):
    uris = uri_list(tmp_path / "list.txt", [*photos(tmp_path / "photos", 20), "missing.jpg"])
    arguments = ["--input", uris, "--output_format", "tfrecord", "--tfrecord_compression", compression]
    job = label(tmp_path / "out", *arguments, "--report", "--scores", "none")
    data = shown(job)
    assert data["sample"][0]["labels"][0].startswith("class ")
    assert sum(data["scores"]["counts"]) == sum(count for _, count in data["labels"]["shown"]) == 20
    before = (job.output / "_report.html").read_text()
    assert make_report(str(job.output)) == 0
    assert (job.output / "_report.html").read_text() == before


@pytest.mark.parametrize("uris", [[], ["a.jpg", "b.jpg", "c.jpg"]], ids=["no row", "all fail"])
def test_a_run_without_a_prediction_has_a_page(uris, tmp_path):
    job = label(tmp_path / "out", "--input", uri_list(tmp_path / "list.txt", uris), "--report")
    assert job.code == (1 if uris else 0)
    data = shown(job)
    assert data["rows"]["failed"] == len(uris)
    assert data["sample"] == [] and data["scores"] is None
    assert data["run"]["within_error_rate"] is not bool(uris)
    assert make_report(str(job.output)) == 0


def test_a_bucket_gets_its_page(gcs: Bucket, tmp_path):
    for path in photos(tmp_path, 5):
        gcs.put(f"photos/{path.name}", path.read_bytes())
    out = gcs.uri("out")
    arguments = ["--input", gcs.uri("photos/"), "--input_format", "images", "--report"]
    assert label(out, *arguments).code == 0
    text = storage.read_bytes(f"{out}/_report.html").decode()
    data = data_of_page(text)
    assert data and len(data["sample"]) == 5 and all(row["thumbnail"] for row in data["sample"])
    assert make_report(out) == 0
    assert storage.read_bytes(f"{out}/_report.html").decode() == text


def committed(tmp_path, monkeypatch, uris, *arguments) -> tuple[str, str]:
    """The output and the staging directory of a committed run whose launcher was killed before it could publish."""
    with monkeypatch.context() as patch:
        patch.setattr("beamlabel.pipeline.output.publish.publish", lambda output, staging: sys.exit("gone"))
        with pytest.raises(SystemExit, match="gone"):
            label(tmp_path / "out", "--input", uris, *arguments)
    (staging,) = tmp_path.glob("_beamlabel-*/staging/*")
    return str(tmp_path / "out"), str(staging)


def test_a_unit_staged_without_a_summary_is_read_again(ran, tmp_path, monkeypatch):
    options = ran.manifest["options"]
    arguments = ["--labels", options["labels"], "--report", "--shard_rows", 64]
    output, staging = committed(tmp_path, monkeypatch, options["input"][0], *arguments)
    path = Path(staging) / "commit.json"
    commit = json.loads(path.read_text())
    for record in commit["records"][1:3]:
        record["files"] = [file for file in record["files"] if file["kind"] != "summary"]
    path.write_text(json.dumps(commit))
    publish(output, staging)
    data = shown(FinishedJob(0, tmp_path / "out"))
    assert data["labels"] == shown(ran)["labels"] and data["scores"] == shown(ran)["scores"]
    bare = [{**row, "thumbnail": None} for row in sample(ran)]
    assert [{**row, "thumbnail": None} for row in sample(FinishedJob(0, tmp_path / "out"))] == bare
    assert any(row["thumbnail"] is None for row in data["sample"])


def test_a_page_that_cannot_be_made_breaks_no_run(tmp_path, monkeypatch, caplog):
    uris = uri_list(tmp_path / "list.txt", photos(tmp_path / "photos", 2))
    output, staging = committed(tmp_path, monkeypatch, uris, "--report")
    next(Path(staging).glob("summaries/*.json")).write_bytes(b"")
    publish(output, staging)
    assert "Could not write the report" in caplog.text
    assert (tmp_path / "out" / "_SUCCESS").exists()
    assert not (tmp_path / "out" / "_report.html").exists()
    assert make_report(output) == 0


def test_a_report_of_nothing(tmp_path):
    with pytest.raises(UsageError, match="no published run"):
        make_report(str(tmp_path))
    command = [sys.executable, "-m", "beamlabel", "report"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, "OUTPUT" in done.stderr) == (2, True)


def test_no_image_is_fetched_twice(http_server: FileServer, tmp_path):
    for path in photos(tmp_path, 12):
        http_server.files[f"/{path.name.replace(' ', '-')}"] = path.read_bytes()
    uris = uri_list(tmp_path / "list.txt", [f"{http_server.url}{name}" for name in http_server.files])
    job = label(tmp_path / "out", "--input", uris, "--allow_http", "--allow_private_hosts", "--report")
    assert all(row["thumbnail"] for row in shown(job)["sample"])
    assert Counter(request.path for request in http_server.requests) == dict.fromkeys(http_server.files, 1)


def manifest_of(files=(), **rows) -> dict:
    counts = {"input": 0, "predicted": 0, "failed": 0, "skipped": 0, **rows}
    return {
        "run_id": "run", "output": "/out", "rows": counts, "metadata": {}, "files": list(files), "seconds": 100.0,
        "started_at": "2026-01-01T00:00:00.000+00:00", "committed_at": "2026-01-01T00:01:40.000+00:00",
        "error_rate": 0.0, "within_error_rate": True, "complete": True, "failed_by_reason": {},
        "options": {"max_error_rate": 0.05},
    }  # fmt: skip


def file_of(rows, start, end) -> dict:
    at = "2026-01-01T00:{:02d}:{:06.3f}+00:00"
    return {
        "rows": rows,
        "started_at": at.format(*divmod(start, 60)),
        "finished_at": at.format(*divmod(end, 60)),
    }


def test_the_images_of_a_unit_are_spread_over_its_time():
    line = timeline(manifest_of([file_of(60, 10, 40), file_of(5, 99, 99)]))
    assert line is not None
    width = line["bin_seconds"]
    assert width * len(line["counts"]) == pytest.approx(100)
    for place, count in enumerate(line["counts"]):
        start, end = place * width, (place + 1) * width
        expected = 2 * max(min(end, 40) - max(start, 10), 0) + (5 if start <= 99 < end else 0)
        assert count == pytest.approx(expected, abs=0.01)


def test_units_of_an_earlier_try_are_told_apart():
    earlier = {
        "rows": 9,
        "started_at": "2025-12-31T20:00:00+00:00",
        "finished_at": "2025-12-31T20:05:00+00:00",
    }
    line = timeline(manifest_of([earlier, file_of(60, 10, 40)]))
    assert line is not None and line["before"] == 9
    assert sum(line["counts"]) == pytest.approx(60, abs=0.1)
    assert timeline(manifest_of([{"rows": 9}])) is None


def test_a_million_rows_of_the_worst_kind_stay_below_two_megabytes():
    wide = "</>&\u2028" * 60
    picture = base64.b64encode(b"x" * MAX_BYTES).decode()
    failures = {f"reason {n}": [{"uri": wide, "ref_id": wide, "detail": wide}] * 3 for n in range(17)}

    def units():
        for unit in range(400):
            names = [f"{unit} {n} {wide}"[:MAX_LABEL] for n in range(100)]
            rows = [
                SampledRow(
                    wide, f"{unit}#{n}", (names[n % 100],) * 5, (n / 144,) * 5, ("top", "random"), picture
                )
                for n in range(144)
            ]
            yield UnitSummary(dict.fromkeys(names, 25), [(0.5, 2500)], failures, rows)

    manifest = {**manifest_of(predicted=1_000_000), "failed_by_reason": dict.fromkeys(failures, 1)}
    data = report_data(manifest, units())
    assert len(data["failures"]) == 17
    text = page(data)
    assert len(text.encode()) < 2_000_000
    assert 60 < len(data["sample"]) <= 144
    assert len(data["labels"]["shown"]) == 200
    assert data["labels"]["others"] == 40_000 - 200


def test_the_shards_summaries_are_in_the_order_of_the_units(ran):
    summaries = list(published_summaries(str(ran.output), ran.manifest))
    assert len(summaries) == ran.manifest["units"] == 5
    assert sum(sum(summary.labels.values()) for summary in summaries) == 299
    assert all(math.isclose(sum(n for _, n in s.scores), sum(s.labels.values())) for s in summaries)
    assert UnitSummary.from_json(summaries[0].to_json()) == summaries[0]


def test_the_page_module_reads_only_its_own_pages():
    assert data_of_page("<html></html>") is None
    assert data_of_page(page(report_data(manifest_of(), []))) is not None
