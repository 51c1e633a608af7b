"""CSV, TSV and JSON lines in whole jobs: the same rows as for a plain list, and the kept columns."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest

from beamlabel.pipeline.output.verify import verify
from beamlabel.transforms.storage.uris import sample_hash
from support.jobs import FinishedJob, label, photos, uri_list

COUNT = 12
OPTIONS = ("--shard_rows", 5, "--max_error_rate", 1)
_OF_THE_RUN = ("labeled_at", "ref_id", "n", "note")


@pytest.fixture(scope="module")
def uris(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    directory = tmp_path_factory.mktemp("tables") / "ä, photos"
    paths = [str(path) for path in photos(directory, COUNT - 2)]
    Path(paths[4]).write_bytes(b"no image")
    return [*paths, str(directory / "missing.png"), paths[0]]


@pytest.fixture(scope="module")
def listed(uris: list[str], tmp_path_factory: pytest.TempPathFactory) -> FinishedJob:
    directory = tmp_path_factory.mktemp("listed")
    job = label(directory / "out", "--input", uri_list(directory / "list.txt", uris), *OPTIONS)
    assert job.code == 0
    return job


def csv_text(uris: list[str]) -> str:
    lines = "".join(f'{number:03d},"{uri}",{number / 2!r},"a\nb"\n' for number, uri in enumerate(uris))
    return "id,uri,n,note\n" + lines


def same_rows(job: FinishedJob, listed: FinishedJob) -> None:
    def facts(rows):
        return [{name: value for name, value in row.items() if name not in _OF_THE_RUN} for row in rows]

    assert facts(job.rows) == facts(listed.rows)
    assert facts(job.failures) == facts(listed.failures)
    assert [ref(row) for row in job.rows] == [ref(row) for row in listed.rows]


def ref(row) -> str:
    return row["ref_id"].rpartition("#")[2]


@pytest.mark.parametrize("name", ["x.csv", "x.txt.gz", "x.jsonl"])
def test_the_rows_are_those_of_a_list(tmp_path, uris, listed, name):
    if name.endswith("jsonl"):
        text = "".join(
            json.dumps({"uri": uri, "n": number / 2, "note": "a\nb"}) + "\n"
            for number, uri in enumerate(uris)
        )
    else:
        text = csv_text(uris)
    (tmp_path / name).write_bytes(gzip.compress(text.encode()) if name.endswith(".gz") else text.encode())
    job = label(tmp_path / "out", "--input", tmp_path / name, "--keep_columns", "n", "note", *OPTIONS)
    assert job.code == 0 and verify(str(job.output)).problems == ()
    same_rows(job, listed)
    assert len(job.manifest["files"]) == len(listed.manifest["files"])
    assert job.manifest["kept_columns"] == {"n": "double", "note": "string"}
    assert [(row["n"], row["note"]) for row in job.rows] == [(int(ref(row)) / 2, "a\nb") for row in job.rows]


def test_broken_rows_failures_and_labeled_images(tmp_path, uris):
    text = csv_text(uris[:4]) + f'004,"{uris[5]}",1\n' + "005,,1.5,x\n" + f'006,"{uris[6]}",2.5,x\n'
    (tmp_path / "x.csv").write_text(text)
    arguments = ("--input", tmp_path / "x.csv", "--keep_columns", "n", *OPTIONS)
    job = label(tmp_path / "night=1", *arguments)
    assert job.manifest["rows"] == {"input": 7, "predicted": 5, "failed": 2, "skipped": 0}
    assert [(ref(row), row["reason"]) for row in job.failures] == [("4", "invalid_row"), ("5", "null_uri")]
    retried = label(tmp_path / "retried", "--retry_failures", job.output, "--max_error_rate", 1)
    assert retried.manifest["rows"] == {"input": 2, "predicted": 0, "failed": 2, "skipped": 0}
    # The launcher reads the kept columns of a growing file again, and the worker skips labeled images.
    (tmp_path / "x.csv").write_text(text + f'007,"{uris[7]}",3.5,x\n')
    again = label(tmp_path / "night=2", *arguments, "--skip_labeled", tmp_path / "night=*")
    assert again.manifest["rows"] == {"input": 8, "predicted": 1, "failed": 2, "skipped": 5}
    assert [row["n"] for row in again.rows] == [3.5]


def test_sample_and_limit(tmp_path, uris):
    (tmp_path / "x.csv").write_text(csv_text(uris))
    wanted = [number for number, uri in enumerate(uris) if sample_hash(uri) < 0.7][:3]
    job = label(tmp_path / "out", "--input", tmp_path / "x.csv", "--sample", 0.7, "--limit", 3, *OPTIONS)
    assert sorted(int(ref(row)) for row in [*job.rows, *job.failures]) == wanted


@pytest.mark.parametrize("ending", ["csv", "csv.gz"])
def test_on_gs(fake_gcs, tmp_path, uris, listed, ending):
    data = csv_text(uris).encode()
    source = fake_gcs.put(f"in/é.{ending}", gzip.compress(data) if ending.endswith("gz") else data)
    job = label(tmp_path / "out", "--input", source, "--keep_columns", "n", *OPTIONS)
    assert job.code == 0
    same_rows(job, listed)


@pytest.mark.parametrize("ending", ["csv", "csv.gz"])
def test_a_run_that_was_cut_off_is_finished(tmp_path, uris, listed, cut_off, ending):
    data = csv_text(uris).encode()
    path = tmp_path / f"x.{ending}"
    path.write_bytes(gzip.compress(data) if ending.endswith("gz") else data)
    arguments = ("--input", path, "--keep_columns", "n", *OPTIONS)
    assert cut_off(tmp_path / "out", *arguments).code == 3
    job = label(tmp_path / "out", *arguments, "--if_exists", "resume")
    assert job.code == 0
    same_rows(job, listed)
    assert job.manifest["resumed_units"] == 2
