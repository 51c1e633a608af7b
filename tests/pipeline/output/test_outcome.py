"""The summary of a run: frequent labels, failures with examples, and how to read the result."""

import logging

import pyarrow.parquet as pq
import pytest

from beamlabel.pipeline.output import outcome
from beamlabel.pipeline.output.outcome import frequent_labels, how_to_read
from support.jobs import label, photos, uri_list


@pytest.fixture
def told(caplog):
    caplog.set_level(logging.INFO, "beamlabel")
    return lambda: [record.message for record in caplog.records]


def mixed(tmp_path):
    """Twelve images, three of them broken, and references to missing files, one with a secret."""
    paths = photos(tmp_path / "photos", 12)
    for path in paths[:3]:
        path.write_bytes(b"no image")
    lost = [
        "/no/such/a.jpg",
        "/no/such/b.jpg",
        "https://user:s3cret@example.org/a.jpg?token=s3cret",
        "ftp://y/z",
    ]
    return uri_list(tmp_path / "list.txt", [*paths, *lost])


def test_labels_reasons_and_how_to_read(tmp_path, told):
    names = tmp_path / "names.txt"
    names.write_text("".join(f"thing {n}\n" for n in range(11)))
    job = label(tmp_path / "out", "--input", mixed(tmp_path), "--labels", names, "--max_error_rate", 1)
    assert job.code == 0
    counts = {}
    for row in job.rows:
        counts[row["label"]] = counts.get(row["label"], 0) + 1
    ordered = sorted(counts.items(), key=lambda one: (-one[1], one[0]))[:5]
    assert frequent_labels(job.manifest) == (ordered, 9)
    lines = told()
    (labels,) = [line for line in lines if line.startswith("Most frequent labels")]
    name, count = ordered[0]
    assert labels.startswith(
        f"Most frequent labels, of 9 predicted: {name} {count} ({100 * count / 9:.0f} %)"
    )
    failed = [line for line in lines if line.startswith("Failed: ")]
    assert failed[0].startswith("Failed: not_an_image 3, such as ") and "photos" in failed[0]
    assert failed[1].startswith("Failed: not_found 2, such as /no/such/a.jpg (")
    assert failed[2].startswith("Failed: not_allowed 1, such as https://example.org/a.jpg (")
    assert failed[3] == "Failed: unsupported_scheme 1"
    assert f"To read the rows: pandas.read_parquet({str(job.output)!r})" in lines[-2]
    assert lines[-1] == f"To write a report: beamlabel report {job.output}"
    assert "s3cret" not in "\n".join(lines)
    assert pq.read_table(job.output).num_rows == 9


def test_classes_without_names_and_a_report(tmp_path, told):
    uris = uri_list(tmp_path / "list.txt", photos(tmp_path / "photos", 3))
    job = label(tmp_path / "out", "--input", uris, "--report")
    found, read = frequent_labels(job.manifest)
    assert read == sum(count for _, count in found) == 3
    assert all(name.startswith("class ") for name, _ in found)
    assert told()[-1] == f"The report: {job.output}/_report.html"


@pytest.mark.parametrize("kind", ["parquet", "tfrecord"])
def test_labels_and_failures_of_a_run_with_a_report_come_from_its_page(tmp_path, told, kind):
    options = ["--input", mixed(tmp_path), "--max_error_rate", 1, "--output_format", kind]
    job = label(tmp_path / "out", *options, "--report")
    first = [line for line in told() if line.startswith(("Most frequent", "Failed: "))]
    assert len(first) == 5
    for path in job.output.rglob("part-*"):
        path.unlink()
    outcome.report(job.manifest)
    assert [line for line in told() if line.startswith(("Most frequent", "Failed: "))] == first * 2


@pytest.mark.parametrize("damage", ["gone", "cut", "of another run"])
def test_without_the_page_of_the_run_its_files_are_read(tmp_path, told, damage):
    job = label(tmp_path / "out", "--input", mixed(tmp_path), "--max_error_rate", 1, "--report")
    page = job.output / "_report.html"
    text = page.read_text()
    if damage == "gone":
        page.unlink()
    else:
        page.write_text(text[:-2000] if damage == "cut" else text.replace(job.manifest["run_id"], "other"))
    outcome.report(job.manifest)
    lines = [line for line in told() if line.startswith(("Most frequent", "Failed: "))]
    assert lines[:5] == lines[5:]


def test_tfrecords_are_not_read_for_labels(tmp_path, told):
    uris = uri_list(tmp_path / "list.txt", photos(tmp_path / "photos", 3))
    job = label(tmp_path / "out", "--input", uris, "--output_format", "tfrecord")
    assert job.code == 0
    assert frequent_labels(job.manifest) == ([], 0)
    assert any("tf.data.TFRecordDataset" in line for line in told())


def test_a_published_run_is_done_even_if_its_files_are_gone(tmp_path, told):
    job = label(tmp_path / "out", "--input", mixed(tmp_path), "--max_error_rate", 1)
    for path in job.output.rglob("part-*"):
        path.unlink()
    assert outcome.report(job.manifest) == 0
    assert "Failed: not_found 2" in told()


def test_shards_that_are_not_read_in_time_are_not_counted(tmp_path, monkeypatch, told):
    uris = uri_list(tmp_path / "list.txt", photos(tmp_path / "photos", 30))
    job = label(tmp_path / "out", "--input", uris, "--shard_rows", 10)
    real, names = outcome._labels_of, sorted(file["name"] for file in job.manifest["files"])
    assert len(names) == 3
    import threading

    def slow(path):
        if path.endswith(names[1]):
            threading.Event().wait(5)
        return real(path)

    monkeypatch.setattr(outcome, "_labels_of", slow)
    monkeypatch.setattr(outcome, "_SECONDS", 2.0)
    outcome.report(job.manifest)
    assert any(line.startswith("Most frequent labels, of the first 10 of 30 predicted: ") for line in told())


@pytest.mark.parametrize(
    ("output", "how"),
    [
        ("gs://b/o", "pyarrow.parquet.read_table('gs://b/o').to_pandas()"),
        ("azfs://a/c/o", "beamlabel report azfs://a/c/o"),
    ],
)
def test_how_to_read_elsewhere(output, how):
    manifest = {
        "output": output, "rows": {"predicted": 1, "input": 1}, "options": {},
        "files": [{"name": "part-r-00000.parquet", "kind": "data", "rows": 1}],
    }  # fmt: skip
    assert any(how in line for line in how_to_read(manifest))


@pytest.mark.parametrize("fault", [RuntimeError("the storage's library"), b"[]\n"])
def test_examples_that_cannot_be_read_do_not_fail_a_run(monkeypatch, told, fault):
    def read_bytes(path):
        if isinstance(fault, Exception):
            raise fault
        return fault

    monkeypatch.setattr(outcome.storage, "read_bytes", read_bytes)
    manifest = {
        "output": "/o", "failed_by_reason": {"not_found": 1}, "skipped_by_reason": {},
        "files": [{"name": "failures-r-00000.jsonl", "kind": "failures", "rows": 1}],
    }  # fmt: skip
    outcome._tell_reasons(manifest, None)
    assert told() == ["Failed: not_found 1"]
