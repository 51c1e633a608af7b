"""Only the command line allows fetching; the manifest of a run cannot."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from beamlabel.pipeline.commands.report import make_report
from beamlabel.pipeline.errors import UsageError
from beamlabel.pipeline.options.fetch_rights import FetchRights
from beamlabel.pipeline.report.data import data_of_page
from beamlabel.pipeline.report.thumbnails import load_options_of
from support.http_site import Site, reply
from support.jobs import label, photos

RAN = {"max_bytes": 1 << 20, "max_pixels": 1 << 20, "fetch_deadline": 9.0}
MADE = {"height": 32, "width": 32, "crop": None}


def test_images_are_fetched_from_the_web_only_by_the_users_leave(http_site: Site, tmp_path: Path) -> None:
    http_site.on("/a.png", reply(body=photos(tmp_path / "photos", 1)[0].read_bytes()))
    uris = tmp_path / "list.txt"
    uris.write_text(f"{http_site.base}/a.png\n")
    job = label(tmp_path / "out", "--input", uris, "--allow_http", "--allow_private_hosts")
    assert job.code == 0 and job.manifest["options"]["allow_http"]
    asked = len(http_site.requests)

    def thumbnails(rights: FetchRights | None) -> list[str | None]:
        assert make_report(str(job.output), fetch=True, rights=rights) == 0
        data = data_of_page((job.output / "_report.html").read_text())
        assert data is not None
        return [row["thumbnail"] for row in data["sample"]]

    for rights in (None, FetchRights(allow_http=True), FetchRights(allow_private_hosts=True)):
        assert thumbnails(rights) == [None]
    assert len(http_site.requests) == asked
    assert all(thumbnails(FetchRights(allow_http=True, allow_private_hosts=True)))
    assert len(http_site.requests) > asked


@pytest.mark.parametrize(
    ("told", "given", "allowed"),
    [
        (None, None, None),
        (["gs"], None, ("gs",)),
        (["file"], ("gs",), ("gs",)),
        (None, ("gs", "https"), ("gs", "https")),
    ],
)
def test_a_manifest_can_forbid_schemes_and_no_more(told: Any, given: Any, allowed: Any) -> None:
    ran = {**RAN, "allowed_schemes": told, "allow_http": True, "billing_project": "somebody-elses"}
    fetch = load_options_of(ran, MADE, FetchRights(allowed_schemes=given)).fetch
    assert fetch.allowed_schemes == allowed
    assert not fetch.allow_http and fetch.billing_project is None


@pytest.mark.parametrize("name", [*RAN, *MADE])
def test_options_of_another_type_are_refused(name: str) -> None:
    ran, made = json.loads(json.dumps([RAN, MADE]))
    (ran if name in ran else made)[name] = "7"
    with pytest.raises(UsageError, match=name):
        load_options_of(ran, made, FetchRights())
