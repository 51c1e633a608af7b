"""A directory of hostile and unusual images: each becomes a row or a failure with the right reason."""

import os
from collections import Counter

import pytest

from beamlabel.transforms.decoding import decode
from beamlabel.transforms.decoding.in_place import decode_in_place
from beamlabel.transforms.decoding.picture.limits import in_place
from beamlabel.transforms.records import Reason
from support.images import hostile_images
from support.jobs import label, uri_list


@pytest.fixture
def as_nobody(tmp_path):
    """Switches to another user, since root can read every file."""
    if os.geteuid() != 0:
        yield
        return
    for directory in (tmp_path, *tmp_path.parents[:3]):  # with several pytest processes one directory more
        directory.chmod(0o777)
    yield
    os.seteuid(0)


def decode_here(data, options):
    with in_place():
        return decode_in_place(data, options)


def test_every_one_ends_as_a_row_or_as_a_failure_with_its_reason(tmp_path, as_nobody, monkeypatch):
    directory = tmp_path / "photos"
    directory.mkdir()
    expected = hostile_images(directory)
    # The user nobody may be unable to run Python from root's home: import everything and compile the module now.
    cache = tmp_path / "cache"
    monkeypatch.setenv("BEAMLABEL_CACHE", str(cache))
    label(tmp_path / "first", "--input", uri_list(tmp_path / "first.txt", [directory / "plain.jpg"]))
    for path in (cache, *cache.rglob("*")):
        path.chmod(0o777)
    monkeypatch.setattr(decode, "decode_with_limits", decode_here)  # a child would import everything again
    names = list(expected)
    uris = uri_list(tmp_path / "list.txt", [directory / name for name in names])
    expected["unreadable.jpg"] = Reason.FORBIDDEN
    if os.geteuid() == 0:
        os.seteuid(65534)
    job = label(tmp_path / "out", "--input", uris, "--max_error_rate", 1)
    found = {row["uri"]: None for row in job.rows} | {f["uri"]: f["reason"] for f in job.failures}
    wanted = {str(directory / name): reason and reason.value for name, reason in expected.items()}
    assert found == wanted
    assert job.code == 0
    reasons = Counter(reason for reason in wanted.values() if reason)
    assert job.manifest["failed_by_reason"] == reasons
    assert job.manifest["rows"] == {
        "input": len(names), "predicted": len(names) - sum(reasons.values()),
        "failed": sum(reasons.values()), "skipped": 0,
    }  # fmt: skip
