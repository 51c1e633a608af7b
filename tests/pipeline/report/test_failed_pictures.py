"""Thumbnails of failed images in the report if their files still exist."""

import base64
import io
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from beamlabel.pipeline.commands.report import make_report
from beamlabel.pipeline.report.data import data_of_page
from beamlabel.pipeline.report.failed_pictures import MAX_PICTURES, with_file
from support.jobs import FinishedJob, label, photos, uri_list
from support.servers import FileServer


def jpeg(size=(200, 160), **options) -> bytes:
    noise = np.random.default_rng(1).integers(100, 156, (size[1], size[0], 3), np.uint8)
    encoded = io.BytesIO()
    Image.fromarray(noise).save(encoded, "JPEG", quality=90, **options)
    return encoded.getvalue()


def examples(job: FinishedJob) -> dict[str, dict]:
    data = data_of_page((job.output / "_report.html").read_text())
    assert data is not None
    return {Path(one["uri"]).name: one for failure in data["failures"] for one in failure["examples"]}


@pytest.fixture(scope="module")
def ran(tmp_path_factory) -> FinishedJob:
    directory = tmp_path_factory.mktemp("failed")
    files = {
        "cut.jpg": jpeg()[:9000],
        "progressive.jpg": jpeg(progressive=True)[:9000],
        "large.jpg": jpeg((700, 700)),
        "cmyk.jpg": b"\xff\xd8\xff" + bytes(2000),
        "page.jpg": b"<html>",
        "empty.jpg": b"",
    }
    for name, content in files.items():
        (directory / name).write_bytes(content)
    uris = [
        *photos(directory / "photos", 3),
        *(directory / name for name in files),
        directory / "missing.jpg",
    ]
    inputs = uri_list(directory / "list.txt", uris)
    arguments = ["--max_error_rate", "1", "--max_pixels", 400_000, "--report"]
    return label(directory / "out", "--input", inputs, *arguments)


def test_a_jpeg_with_faults_has_a_picture(ran):
    found = examples(ran)
    assert {name for name, one in found.items() if one["thumbnail"]} == {
        "cut.jpg",
        "progressive.jpg",
        "large.jpg",
    }
    picture = Image.open(io.BytesIO(base64.b64decode(found["cut.jpg"]["thumbnail"])))
    assert picture.format == "JPEG" and min(picture.size) <= 160
    links = {name: one["link"] for name, one in found.items()}
    assert links.pop("missing.jpg") is None, "there is no file to open"
    assert links == {name: f"../{name}" for name in links}


def test_made_later_it_is_the_same_with_fetch_only(ran):
    page = ran.output / "_report.html"
    before = page.read_text()
    assert make_report(str(ran.output)) == 0 and page.read_text() == before, "from the page that is there"
    page.unlink()
    assert make_report(str(ran.output)) == 0
    assert not any(one["thumbnail"] for one in examples(ran).values()), "no file is opened without --fetch"
    assert make_report(str(ran.output), fetch=True) == 0 and page.read_text() == before


def test_nothing_is_fetched_again_from_the_web(http_server: FileServer, tmp_path):
    http_server.files["/cut.jpg"] = jpeg()[:9000]
    inputs = uri_list(tmp_path / "list.txt", [f"{http_server.url}/cut.jpg"])
    arguments = ["--allow_http", "--allow_private_hosts", "--max_error_rate", "1", "--report"]
    job = label(tmp_path / "out", "--input", inputs, *arguments)
    assert len(http_server.requests) == 1
    assert examples(job)["cut.jpg"]["thumbnail"] is None
    assert examples(job)["cut.jpg"]["link"] == f"{http_server.url}/cut.jpg"


def test_the_first_examples_of_all_reasons_come_first():
    failures = [
        {"reason": reason, "examples": [{"uri": f"{reason} {n}", "thumbnail": None} for n in range(3)]}
        for reason in (
            "truncated",
            "corrupt",
            "decode_error",
            "not_found",
            "internal_error",
            "inference_error",
        )
    ]
    chosen = [example["uri"] for example in with_file(failures)]
    assert len(chosen) == MAX_PICTURES
    assert chosen[:5] == [f"{f['reason']} 0" for f in failures if f["reason"] != "not_found"]


def test_a_name_inside_a_table_is_not_another_file(tmp_path, monkeypatch):
    (tmp_path / "cut.jpg").write_bytes(jpeg()[:9000])
    monkeypatch.chdir(tmp_path)
    images = [{"bytes": jpeg(progressive=True)[:8000], "path": "cut.jpg"}]
    pq.write_table(pa.table({"image": images}), tmp_path / "images.parquet")
    arguments = ["--image_column", "image", "--max_error_rate", "1", "--report"]
    job = label(tmp_path / "out", "--input", tmp_path / "images.parquet", *arguments)
    assert [one["thumbnail"] for one in examples(job).values()] == [None]
