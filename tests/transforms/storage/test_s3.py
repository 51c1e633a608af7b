"""``storage`` on ``s3://``, beyond the contract: retries, conditions, and the ways to configure S3."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from beamlabel.transforms import storage
from beamlabel.transforms.storage import beam_setup, retries, s3, s3_client
from support.s3_server import S3Bucket

bucket = pytest.fixture(lambda s3: s3)


@pytest.mark.parametrize("status", [500, 503, 429, 408])
def test_temporary_errors_are_tried_again(bucket: S3Bucket, status: int, tmp_path: Path) -> None:
    path = bucket.put("a", b"12345")
    (tmp_path / "local").write_bytes(b"put")
    calls = [
        lambda: storage.stat(path),
        lambda: storage.read_bytes(path),
        lambda: list(storage.match(bucket.uri("*"))),
        lambda: storage.write_bytes(bucket.uri("b"), b"x"),
        lambda: storage.put_file(str(tmp_path / "local"), bucket.uri("c")),
        lambda: storage.copy(path, bucket.uri("d")),
        lambda: storage.delete(bucket.uri("d")),
        lambda: storage.delete_tree(bucket.uri("t")),
    ]
    for call in calls[: 8 if status == 503 else 2]:
        bucket.server.fail_next(1, status)
        call()
    if status == 503:
        assert bucket.list() == ["a", "b", "c"]


def test_half_a_body_is_read_again(bucket: S3Bucket) -> None:
    path = bucket.put("a", b"0123456789" * 1000)
    bucket.server.cut_next(2, method="GET")
    assert storage.read_bytes(path) == b"0123456789" * 1000
    with storage.open_input(path) as file:
        bucket.server.cut_next(1, method="GET")
        file.seek(10)
        assert file.read() == b"0123456789" * 999


@pytest.mark.parametrize(("status", "kind"), [(403, PermissionError), (401, PermissionError), (405, OSError)])
def test_a_lasting_error_is_requested_once(bucket: S3Bucket, status: int, kind: type) -> None:
    path = bucket.put("a", b"x")
    bucket.server.fail_next(9, status)
    for number, call in enumerate((storage.stat, storage.read_bytes), 1):
        with pytest.raises(kind) as caught:
            call(path)
        assert type(caught.value) is kind
        assert caught.value.filename == path
        assert bucket.server.count() == number


def test_tries_end(bucket: S3Bucket, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retries, "TIMEOUT", 0.5)
    bucket.server.fail_next(999, 503)
    with pytest.raises(OSError, match="SlowDown"):
        storage.read_bytes(bucket.uri("a"))
    assert bucket.server.count() >= 2


def test_buckets_and_what_can_be_none(bucket: S3Bucket) -> None:
    with pytest.raises(IsADirectoryError):
        storage.write_bytes(bucket.url, b"x")
    for uri in ("s3://", "s3:///a", "s3://*/a"):
        with pytest.raises(ValueError, match="s3://bucket/name"):
            s3_client.parse(uri)
    with pytest.raises(FileNotFoundError):
        storage.read_bytes("s3://no-such-bucket/a")


def test_an_answer_that_is_lost_does_not_lose_the_race(bucket: S3Bucket) -> None:
    bucket.server.fail_next(1, 503, method="PUT", done=True)
    assert storage.create_if_absent(bucket.uri("a"), b"ours")
    assert not storage.create_if_absent(bucket.uri("a"), b"ours")


def test_a_writer_between_check_and_write_wins(bucket: S3Bucket) -> None:
    def put() -> None:
        if bucket.server.requests[-1].method == "PUT":
            bucket.put("a", b"theirs")

    bucket.server.before("/a", put)
    assert not storage.create_if_absent(bucket.uri("a"), b"ours")
    assert bucket.get("a") == b"theirs"


def test_a_server_without_conditions_is_written_to(bucket: S3Bucket) -> None:
    bucket.server.fail_next(1, 501, method="PUT")
    assert storage.create_if_absent(bucket.uri("a"), b"ours")
    assert not storage.create_if_absent(bucket.uri("a"), b"others")
    assert bucket.get("a") == b"ours"


def test_large_objects_go_in_parts(bucket: S3Bucket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(s3, "_PART_BYTES", 5 << 20)
    monkeypatch.setattr(s3, "_COPY_BYTES", 1 << 20)
    data = bytes(range(256)) * (6 << 12)
    (tmp_path / "local").write_bytes(data)
    bucket.server.fail_next(1, 503, method="PUT", contains="partNumber=2")
    storage.put_file(str(tmp_path / "local"), bucket.uri("a"))
    assert bucket.get("a") == data
    assert bucket.etag("a").endswith("-2")
    storage.copy(bucket.put("b", data), bucket.uri("c"))
    assert bucket.get("c") == data
    assert not (tmp_path / "local").exists()


@pytest.fixture
def by_options(bucket: S3Bucket, monkeypatch: pytest.MonkeyPatch) -> Iterator[S3Bucket]:
    """No environment variable names the server."""
    for name in ("AWS_ENDPOINT_URL_S3", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    yield bucket
    beam_setup.configure([])


def test_beams_options_say_how_s3_is_reached(by_options: S3Bucket) -> None:
    path = by_options.put("a", b"x")
    beam_setup.configure(
        ["--s3_endpoint_url", by_options.server.url, "--s3_access_key_id=us", "--s3_secret_access_key", "secret",
         "--s3_region_name", "eu-central-1", "--s3_verify", "false", "--runner", "DirectRunner"]
    )  # fmt: skip
    assert storage.read_bytes(path) == b"x"
    assert "us/" in by_options.server.requests[-1].headers["Authorization"]
    assert "/eu-central-1/" in by_options.server.requests[-1].headers["Authorization"]
    assert s3_client.reached().settings.verify is False


def test_a_pipelines_options_count_after_it_was_made(by_options: S3Bucket) -> None:
    import apache_beam as beam
    from apache_beam.options.pipeline_options import PipelineOptions

    path = by_options.put("a", b"x")
    beam_setup.configure([])
    s3_client.reached()
    reached = [
        "--s3_endpoint_url",
        by_options.server.url,
        "--s3_access_key_id=us",
        "--s3_secret_access_key=secret",
    ]
    beam.Pipeline(options=PipelineOptions(reached))
    assert storage.read_bytes(path) == b"x"


def test_options_of_storages_are_told_from_others() -> None:
    words = [
        "out",
        "--s3_endpoint_url",
        "http://h",
        "--quick",
        "--s3_disable_ssl",
        "x",
        "--hdfs_host=h",
        "--s3_other",
    ]
    assert beam_setup.split(words) == (
        ["--s3_endpoint_url", "http://h", "--s3_disable_ssl", "--hdfs_host=h"],
        ["out", "--quick", "x", "--s3_other"],
    )


def test_the_options_are_beams() -> None:
    from apache_beam.options import pipeline_options as beam

    groups = (beam.S3Options, beam.AzureOptions, beam.HadoopFileSystemOptions)
    names = {name for group in groups for name in beam.PipelineOptions([]).view_as(group).get_all_options(
        add_extra_args_fn=None, retain_unknown_options=False)}  # fmt: skip
    assert set(beam_setup.OPTIONS) <= names
    prefixes = ("s3_", "azure_", "blob_service", "hdfs_")
    assert {name for name in names if name.startswith(prefixes)} == set(beam_setup.OPTIONS)
