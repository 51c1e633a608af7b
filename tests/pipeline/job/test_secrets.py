"""Whole runs over many URLs with one secret: neither outputs nor logs hold it."""

from __future__ import annotations

import csv
import gzip
import logging
import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from beamlabel.pipeline.commands.report import make_report
from support.http_site import Site, reply
from support.jobs import FinishedJob, label, photos
from support.secret_urls import CONTEXTS, PARAMETERS, urls

SECRET = "Zq7xS3cretZq7x"


@pytest.fixture
def said(caplog: Any, capfd: Any) -> Iterator[Any]:
    """A function that returns everything logged and printed so far."""
    caplog.set_level(logging.DEBUG, logger="beamlabel")

    def text() -> str:
        out = capfd.readouterr()
        return "".join(record.getMessage() + str(record.exc_text) for record in caplog.records
                       if record.name.startswith("beamlabel")) + out.out + out.err  # fmt: skip

    yield text


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "cache"
    monkeypatch.setenv("XDG_CACHE_HOME", str(path))
    return path


def content(directory: Path) -> Iterator[tuple[Path, str]]:
    """The files of a directory as text: for Parquet also rows and metadata, for gzip the unpacked content."""
    for path in directory.rglob("*"):
        if path.is_file():
            data = path.read_bytes()
            yield path, f"{path} {data.decode('latin-1')}"
            if path.suffix == ".parquet":
                table = pq.read_table(path)
                yield path, f"{table.to_pylist()} {table.schema.metadata}"
            elif path.suffix == ".gz":
                yield path, gzip.decompress(data).decode("latin-1")


def assert_no_secret(*directories: Path) -> int:
    count = 0
    for directory in directories:
        for path, text in content(directory):
            assert SECRET not in text, path
            count += 1
    return count


# These would lead to requests.
_ASKED = ("s3://", "gs://", "ftp://", "sftp://", "abfs://", "hdfs://")


def lines() -> list[str]:
    """Each URL in a different position; in all positions with ``BEAMLABEL_TESTS_LONG``."""
    contexts, found = CONTEXTS[:8], []
    for number, url in enumerate(urls(SECRET)):
        chosen = contexts if os.environ.get("BEAMLABEL_TESTS_LONG") else [contexts[number % len(contexts)]]
        found += [context.format(url) for context in chosen]
    # A path without a scheme has no user, and a list has one reference per line.
    return [line for line in found if "\n" not in line and not line.strip().startswith(_ASKED)]


def test_a_list_of_urls_with_secrets_leaves_none(tmp_path: Path, said: Any) -> None:
    listed = tmp_path / "in" / "list.txt"
    listed.parent.mkdir()
    listed.write_text("\n".join(lines()))
    web = f"https://user:{SECRET}@host.example.org/dir"
    job = label(tmp_path / "out", "--input", listed, "--base_dir", web, "--max_error_rate", 1, "--report")
    assert job.code in (0, 1)
    assert job.manifest["rows"]["failed"] == len(lines())
    assert len(job.failures) == len(lines())
    assert job.manifest["options"]["base_dir"] == "https://host.example.org/dir"
    assert assert_no_secret(tmp_path / "out") >= 4
    assert SECRET not in said()
    assert make_report(str(tmp_path / "out")) == 0
    assert_no_secret(tmp_path / "out")
    assert SECRET not in said()


def test_rows_and_kept_columns_hold_no_secret(
    http_site: Site, tmp_path: Path, cache: Path, said: Any
) -> None:
    body = photos(tmp_path / "photos", 1)[0].read_bytes()
    host = http_site.base.removeprefix("http://")
    rows = []
    for number, name in enumerate(PARAMETERS):
        path = f"/{number}.png?w=1&{name}={SECRET}"
        answers = [
            reply(body=body),
            reply(403, SECRET.encode()),
            reply(302, b"", Location=f"{path}x&token={SECRET}"),
        ]
        http_site.on(path, answers[number % 3])
        http_site.on(f"{path}x&token={SECRET}", reply(404, SECRET.encode()))
        url = f"http://{'user:' + SECRET + '@' if number % 2 else ''}{host}{path}"
        rows.append(
            {"url": url, "note": f'see "{url}", of user:{SECRET}@db.example.org', "plain": f"n{number}@x"}
        )
    listed = tmp_path / "in" / "list.csv"
    listed.parent.mkdir()
    with listed.open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0].keys())
        writer.writeheader()
        writer.writerows(rows)
    arguments = ("--input", listed, "--keep_columns", "note", "plain", "--max_error_rate", 1, "--report")
    web = ("--allow_http", "--allow_private_hosts", "--fetch_deadline", 20)
    job = label(tmp_path / "out", *arguments, *web)
    assert job.code == 0
    assert [row["plain"] for row in job.rows] == [f"n{number}@x" for number in range(0, len(PARAMETERS), 3)]
    assert {row["uri"] for row in job.rows} == {
        f"http://{host}/{number}.png?w=1" for number in range(0, len(PARAMETERS), 3)
    }
    assert Counter(failure["reason"] for failure in job.failures)["forbidden"] == len(PARAMETERS) // 3
    # The server received them.
    assert any(SECRET in path for path, _, _ in http_site.requests)
    assert_no_secret(tmp_path / "out")
    # A second night recognizes the same images.
    again = label(tmp_path / "next", *arguments, *web, "--skip_labeled", tmp_path / "out")
    assert again.manifest["skipped_by_reason"].get("labeled") == len(job.rows)
    assert_no_secret(tmp_path / "next", cache)
    assert SECRET not in said()


@pytest.mark.parametrize(
    "option",
    [
        ("--input", f"https://user:{SECRET}@host.example.org/a.jpg"),
        ("--input", f"s3://key:{SECRET}@bucket/list.txt"),
        ("--input", f"gs://bucket/list.txt?X-Goog-Signature={SECRET}"),
        ("--output", f"s3://key:{SECRET}@bucket/out"),
        ("--output", f"file://user:{SECRET}@host/out"),
        ("--module", f"https://user:{SECRET}@127.0.0.1:9/module"),
        ("--module", f"/nowhere/https://user:{SECRET}@host.example.org/module?token={SECRET}"),
        ("--labels", f"https://user:{SECRET}@host.example.org/labels.txt"),
        ("--skip_labeled", f"hdfs://user:{SECRET}@host.example.org/out"),
        ("--retry_failures", f"/nowhere?token={SECRET}"),
        ("--max_error_rate", f"https://user:{SECRET}@host.example.org"),
        ("--top_kk", f"user:{SECRET}@host.example.org"),
    ],
)
def test_no_usage_error_shows_a_secret(tmp_path: Path, option: tuple[str, str], said: Any) -> None:
    image = photos(tmp_path / "photos", 1)[0]
    given = {"--input": str(image), "--module": str(tmp_path / "module"), "--output": str(tmp_path / "out")}
    given[option[0]] = option[1]
    output, module = given.pop("--output"), given.pop("--module")
    job: FinishedJob = label(output, *(word for pair in given.items() for word in pair), module=module)
    assert job.code == 2
    told = said()
    assert "error: " in told
    assert SECRET not in told
