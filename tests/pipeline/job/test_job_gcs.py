"""URIs, Parquet input, module and output on gs://, against a GCS server."""

import contextlib
import io
import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from beamlabel.pipeline.job import progress
from beamlabel.pipeline.runners import execute
from beamlabel.transforms import storage
from beamlabel.transforms.storage.billing import set_billing_project
from support.jobs import TINY, command, label, photos


@pytest.fixture
def bucket(gcs, tmp_path):
    """A bucket with photographs, one of them broken, a list, a Parquet input and the module."""
    uris = [gcs.put(f"photos/{path.name}", path.read_bytes()) for path in photos(tmp_path / "photos", 6)]
    gcs.put("photos/photo 001.png", b"no image")
    uris.append(gcs.uri("photos/missing.png"))
    gcs.put("in/list.txt", "\n".join(uris).encode())
    buffer = io.BytesIO()
    pq.write_table(pa.table({"uri": uris, "n": range(7)}), buffer, row_group_size=2)
    gcs.put("in/list.parquet", buffer.getvalue())
    gcs.put("modules/tiny.tar.gz", Path(TINY).read_bytes())
    return gcs.url


def read(root):
    manifest = json.loads(storage.read_bytes(f"{root}/_MANIFEST.json"))
    rows, failures = [], []
    for file in manifest["files"]:
        content = storage.read_bytes(f"{root}/{file['name']}")
        if file["kind"] == "data":
            rows += pq.read_table(io.BytesIO(content)).to_pylist()
        else:
            failures += [json.loads(line) for line in content.splitlines()]
    return manifest, rows, failures


@pytest.mark.parametrize("name", ["list.txt", "list.parquet"])
def test_everything_on_gs(bucket, name):
    output = f"{bucket}/out/{name}"
    keep = ("--keep_columns", "n") if name.endswith("parquet") else ()
    arguments = ("--input", f"{bucket}/in/{name}", "--max_error_rate", 1, "--shard_rows", 3, *keep)
    job = label(output, *arguments, module=f"{bucket}/modules/tiny.tar.gz")
    assert job.code == 0
    manifest, rows, failures = read(output)
    assert manifest["rows"] == {"input": 7, "predicted": 5, "failed": 2, "skipped": 0}
    assert {failure["reason"] for failure in failures} == {"not_an_image", "not_found"}
    assert all(row["uri"].startswith(f"{bucket}/photos/") and row["source_version"] for row in rows)
    assert storage.exists(f"{output}/_SUCCESS")
    there = {file.path.removeprefix(output + "/") for file in storage.match(output + "/")}
    assert there == {"_MANIFEST.json", "_SUCCESS", *(file["name"] for file in manifest["files"])}
    assert label(output, *arguments, module=f"{bucket}/modules/tiny.tar.gz").code == 2


def test_a_prefix_of_images(bucket):
    output = f"{bucket}/out/prefix"
    job = label(output, "--input", f"{bucket}/photos/", "--input_format", "images", "--max_error_rate", 1)
    assert job.code == 0
    manifest, rows, _ = read(output)
    assert manifest["rows"]["input"] == 6
    assert [row["uri"] for row in rows] == sorted(row["uri"] for row in rows)


def test_one_request_an_image(bucket, gcs):
    label(f"{bucket}/out/count", "--input", f"{bucket}/in/list.txt", "--max_error_rate", 1)
    assert gcs.server.count(contains="/photos/") == 7


def test_overwriting_on_gs_leaves_one_run(bucket):
    output = f"{bucket}/out/twice"
    arguments = ("--input", f"{bucket}/in/list.txt", "--max_error_rate", 1)
    assert label(output, *arguments).code == 0
    assert label(output, *arguments, "--limit", 3, "--if_exists", "overwrite").code == 0
    manifest, rows, _ = read(output)
    assert len(rows) == 2
    parts = [file.path for file in storage.match(output + "/") if "/part-" in file.path]
    assert len(parts) == len(manifest["files"])


def test_everything_in_a_bucket_whose_requesters_pay(gcs, bucket, monkeypatch, capfd):
    """Launcher, workers and ``verify`` name the billing project; without the option no run begins."""
    gcs.server.requester_pays.add(gcs.bucket)
    real = execute.execute

    def as_elsewhere(*arguments):
        set_billing_project(None)  # workers get it with their steps
        real(*arguments)

    monkeypatch.setattr(execute, "execute", as_elsewhere)
    monkeypatch.setattr(progress, "shown", lambda *_, **__: contextlib.nullcontext())  # the launcher's
    output, module = f"{bucket}/out", f"{bucket}/modules/tiny.tar.gz"
    arguments = ("--input", f"{bucket}/in/list.parquet", "--max_error_rate", 1, "--shard_rows", 3)
    try:
        assert label(output, *arguments, module=module).code == 2
        assert "--billing_project" in capfd.readouterr().err
        gcs.server.requests.clear()
        assert label(output, *arguments, "--billing_project", "my-project-1", module=module).code == 0
        assert gcs.server.batched
        assert all("userProject=my-project-1" in call for call in gcs.server.batched)
        begun = [
            request
            for request in gcs.server.requests
            if "upload_id" not in request.query and not request.path.startswith("/batch/")
        ]
        unpaid = [request for request in begun if request.query.get("userProject") != ["my-project-1"]]
        assert not [(request.method, request.path, request.query) for request in unpaid]
        manifest, rows, _ = read(output)
        assert (len(rows), manifest["options"]["billing_project"]) == (5, "my-project-1")
        done = command("verify", output, "--billing_project", "my-project-1")
        assert done.returncode == 0, done.stdout + done.stderr
        assert "--billing_project" in command("verify", output).stderr
    finally:
        set_billing_project(None)
