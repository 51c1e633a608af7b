"""References, Parquet input, module and output on s3://, against an S3 server.

Only Beam's options name the server, for the launcher as for the workers.
"""

import io
import json
import shlex
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from beamlabel.transforms.storage import beam_setup
from support.jobs import TINY, command, label, photos
from support.paths import ROOT
from support.s3_server import KEYS, S3Bucket, S3Server

NAMES = ["a b.png", "ü漢.png", "50%20#x+?.png", "f/4.png", "broken.png", "f/6.png"]


@pytest.fixture(scope="module")
def bucket(s3_server: S3Server, tmp_path_factory: pytest.TempPathFactory) -> S3Bucket:
    """A bucket with photographs, one of them broken, lists of them, a Parquet input and the module."""
    made = S3Bucket(s3_server, "bucket-of-jobs")
    images = [path.read_bytes() for path in photos(tmp_path_factory.mktemp("photos"), 6)]
    images[4] = b"no image"
    uris = [made.put(f"photos/{name}", data) for name, data in zip(NAMES, images, strict=True)]
    uris.append(made.uri("photos/missing.png"))
    made.put("in/list.txt", "\n".join(uris).encode())
    buffer = io.BytesIO()
    pq.write_table(pa.table({"uri": uris, "n": range(7)}), buffer, row_group_size=2)
    made.put("in/list.parquet", buffer.getvalue())
    made.put("modules/tiny.tar.gz", Path(TINY).read_bytes())
    return made


@pytest.fixture
def reached(bucket: S3Bucket, monkeypatch: pytest.MonkeyPatch) -> "list[str]":
    """Beam's options for the bucket; no environment variable names the server."""
    for name in (*KEYS, "AWS_ENDPOINT_URL_S3"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    bucket.server.forget()
    beam_setup.configure([])
    return [
        f"--s3_endpoint_url={bucket.server.url}", "--s3_access_key_id=us", "--s3_secret_access_key=secret",
        "--s3_region_name=eu-central-1",
    ]  # fmt: skip


def read(bucket: S3Bucket, output: str) -> "tuple[dict, list[dict], list[dict]]":
    manifest = json.loads(bucket.get(f"{output}/_MANIFEST.json"))
    rows, failures = [], []
    for file in manifest["files"]:
        content = bucket.get(f"{output}/{file['name']}")
        if file["kind"] == "data":
            rows += pq.read_table(io.BytesIO(content)).to_pylist()
        else:
            failures += [json.loads(line) for line in content.splitlines()]
    return manifest, rows, failures


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("list.txt", ()),
        # Workers in separate processes get the options from Beam.
        ("list.parquet", ("--keep_columns", "n", "--direct_running_mode=multi_processing",
                          "--direct_num_workers=2")),
    ],
)  # fmt: skip
def test_everything_on_s3(
    bucket: S3Bucket, reached: "list[str]", name: str, options: "tuple[str, ...]"
) -> None:
    output = f"out/{name}"
    arguments = (
        "--input",
        bucket.uri(f"in/{name}"),
        "--max_error_rate",
        1,
        "--shard_rows",
        3,
        *options,
        *reached,
    )
    module = bucket.uri("modules/tiny.tar.gz")
    assert label(bucket.uri(output), *arguments, module=module).code == 0
    manifest, rows, failures = read(bucket, output)
    assert manifest["rows"] == {"input": 7, "predicted": 5, "failed": 2, "skipped": 0}
    assert {failure["reason"] for failure in failures} == {"not_an_image", "not_found"}
    found = {row["uri"]: row["source_version"] for row in rows}
    assert found == {
        bucket.uri(f"photos/{name}"): bucket.etag(f"photos/{name}") for name in NAMES if name != "broken.png"
    }
    assert set(bucket.list(f"{output}/")) == {
        f"{output}/{name}" for name in ("_MANIFEST.json", "_SUCCESS", *(f["name"] for f in manifest["files"]))
    }
    assert bucket.server.count(contains="/photos/") == 7, "one request per image"
    assert label(bucket.uri(output), *arguments, module=module).code == 2, "the output exists"


def test_nights_on_s3(bucket: S3Bucket, reached: "list[str]") -> None:
    """A listing, a second night, an overwriting night, and a resumed one, with some storage failures."""
    arguments = (
        "--input",
        bucket.uri("photos/**"),
        "--input_format",
        "images",
        "--max_error_rate",
        1,
        *reached,
    )
    bucket.server.fail_next(2, 503, method="GET")
    bucket.server.cut_next(1, contains="f/4.png")
    bucket.server.fail_next(1, 500, method="PUT", contains="part-")
    bucket.server.fail_next(1, 503, method="PUT", contains="_MANIFEST.json", done=True)
    assert label(bucket.uri("nights/1"), *arguments).code == 0
    manifest, rows, _ = read(bucket, "nights/1")
    assert manifest["rows"] == {"input": 6, "predicted": 5, "failed": 1, "skipped": 0}
    assert {row["uri"] for row in rows} == {bucket.uri(f"photos/{name}") for name in NAMES} - {
        bucket.uri("photos/broken.png")
    }

    second = (*arguments, "--skip_labeled", bucket.uri("nights/*/"))
    assert label(bucket.uri("nights/2"), *second).code == 0
    manifest, rows, _ = read(bucket, "nights/2")
    assert manifest["skipped_by_reason"] == {"known_failure": 1, "labeled": 5} and rows == []

    assert label(bucket.uri("nights/1"), *arguments, "--limit", 2, "--if_exists", "overwrite").code == 0
    manifest, rows, _ = read(bucket, "nights/1")
    assert manifest["rows"]["input"] == 2
    parts = [name for name in bucket.list("nights/1/") if "/part-" in name]
    assert len(parts) == len(manifest["files"])
    assert label(bucket.uri("nights/1"), *arguments, "--limit", 2, "--if_exists", "resume").code == 0


def done(*words: object) -> "subprocess.CompletedProcess[str]":
    found = command(*words)
    assert found.returncode == 0, found.stderr
    return found


def test_a_run_whose_launcher_was_gone_is_published(
    bucket: S3Bucket, reached: "list[str]", monkeypatch: pytest.MonkeyPatch
) -> None:
    output = bucket.uri("commands/out")
    arguments = ("--input", bucket.uri("in/list.txt"), "--max_error_rate", 1, *reached)
    with monkeypatch.context() as patch:
        patch.setattr("beamlabel.pipeline.output.publish.publish", lambda output, staging: sys.exit("gone"))
        with pytest.raises(SystemExit, match="gone"):
            label(output, *arguments)
    done("publish", output, *reached)
    assert read(bucket, "commands/out")[0]["rows"]["predicted"] == 5


def test_the_commands_of_the_page(
    bucket: S3Bucket, reached: "list[str]", monkeypatch: pytest.MonkeyPatch
) -> None:
    page = (ROOT / "docs" / "inputs.md").read_text()
    block = page.partition("named by its URL:\n\n```bash\n")[2].partition("```")[0].replace("\\\n", "")
    for name, value in {
        "http://minio.example:9000": bucket.server.url,
        "s3://photos/2026/": bucket.uri("photos/f/"),
        "s3://labels/2026": bucket.uri("labels/2026"),
        "--module demo": f"--module {TINY}",
    }.items():
        assert name in block
        block = block.replace(name, value)
    for name, value in KEYS.items():
        monkeypatch.setenv(name, value)
    said = [done(*shlex.split(line)[1:]).stderr for line in block.splitlines()]
    assert "is consistent" in said[-1]
    assert read(bucket, "labels/2026")[0]["rows"]["predicted"] == 2
