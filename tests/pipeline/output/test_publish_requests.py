"""The bucket requests of publishing and of a launch, and a publisher that dies between any two requests."""

from __future__ import annotations

import json

from beamlabel.pipeline.job.preflight import check_output
from beamlabel.pipeline.output import staging
from beamlabel.pipeline.output.publish import finish_pending, publish, submitted
from beamlabel.transforms.storage import gcs_client
from support.committed import commit_run
from support.gcs_server import Bucket


def listings(gcs: Bucket) -> list[dict]:
    return [dict(r.query) for r in gcs.server.requests if r.method == "GET" and r.path.endswith("/o")]


def names(gcs: Bucket) -> dict[str, bytes]:
    return {name: gcs.get(name) for name in gcs.list("out/")}


def test_publishing_takes_a_few_requests_for_hundreds_of_shards(gcs):
    directory = commit_run(gcs, 250)
    publish(gcs.uri("out"), directory)
    assert len(gcs.list("out/part-")) == 250
    assert not gcs.list("out/_beamlabel/")
    assert gcs.server.count("POST", "/batch/") == 3 + 3 + 3  # copies, deletions of these, and of the records
    assert gcs.server.count() < 30


def test_replacing_hundreds_of_shards_takes_a_few_requests(gcs):
    publish(gcs.uri("out"), commit_run(gcs, 250))
    directory = commit_run(gcs, 1, run="20260102T000000Z-abcdef")
    before = gcs.server.count()
    publish(gcs.uri("out"), directory)
    assert gcs.list("out/part-") == ["out/part-20260102T000000Z-abcdef-00000.parquet"]
    assert gcs.server.count() - before < 25


def test_a_launch_lists_only_the_top_of_the_staging_directory(gcs):
    """A killed run has staged hundreds of files."""
    directory = commit_run(gcs, 350)
    gcs.remove(directory.removeprefix(f"{gcs.url}/") + "/commit.json")
    assert finish_pending(gcs.uri("out")) == []
    check_output(gcs.uri("out"), "error")
    assert submitted(gcs.uri("out")) is None
    assert all(query.get("delimiter") == ["/"] for query in listings(gcs))
    assert gcs.server.count() < 20
    before = len(listings(gcs))
    staging.delete_all(gcs.uri("out"))
    whole = [query for query in listings(gcs)[before:] if "delimiter" not in query]
    assert len(whole) == 1  # a page: files must be listed once before they are deleted
    assert not gcs.list("out/")


class Killed(BaseException):
    """A stand-in for SIGKILL: no code after it runs."""


def test_a_publisher_that_dies_before_any_request_is_run_again(gcs, monkeypatch):
    """The output holds an earlier run; readers of the manifest see all of that run or all of the new one."""
    session = gcs_client.session(gcs_client.client())
    real = session.request
    for kill_at in range(100):
        for name in gcs.list("out/"):
            gcs.remove(name)
        publish(gcs.uri("out"), commit_run(gcs, 1))
        before = names(gcs)
        directory = commit_run(gcs, 3, run="20260102T000000Z-abcdef")
        sent = 0

        def request(*arguments, kill_at=kill_at, **options):
            nonlocal sent
            sent += 1
            if sent > kill_at:
                raise Killed
            return real(*arguments, **options)

        monkeypatch.setattr(session, "request", request)
        try:
            publish(gcs.uri("out"), directory)
        except Killed:
            pass
        else:
            break
        monkeypatch.setattr(session, "request", real)
        seen = names(gcs)
        named = {file["name"] for file in json.loads(seen["out/_MANIFEST.json"])["files"]}
        assert {f"out/{name}" for name in named} <= seen.keys()
        assert seen["out/_MANIFEST.json"] == before["out/_MANIFEST.json"] or len(named) == 3
        finish_pending(gcs.uri("out"))
        after = names(gcs)
        assert sorted(after) == [
            "out/_MANIFEST.json",
            "out/_SUCCESS",
            *(f"out/part-20260102T000000Z-abcdef-{number:05d}.parquet" for number in range(3)),
        ]
        assert [after[name] for name in sorted(after)[2:]] == [b"%d" % number for number in range(3)]
    assert kill_at > 12
