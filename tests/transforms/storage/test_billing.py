"""Requester-pays buckets: every request names the billing project, or the error names the option for it."""

from collections.abc import Iterator

import pytest

from beamlabel.transforms import storage
from beamlabel.transforms.loading.fetch import Fetched, FetchOptions, fetch
from beamlabel.transforms.records import ImageError, Reason
from beamlabel.transforms.storage.billing import billing_project, set_billing_project
from support.fake_gcs import FakeBucket
from support.gcs_server import Bucket


@pytest.fixture
def paid(gs: Bucket | FakeBucket) -> Iterator[Bucket | FakeBucket]:
    """A requester-pays bucket."""
    gs.server.requester_pays.add(gs.bucket)
    yield gs
    set_billing_project(None)


def test_storage_names_the_payer(paid: Bucket | FakeBucket, tmp_path) -> None:
    local = tmp_path / "large"
    local.write_bytes(bytes(9 << 20))
    paid.put("there.txt", b"there")
    calls = {
        "stat": lambda: storage.stat(paid.uri("there.txt")),
        "read": lambda: storage.read_bytes(paid.uri("there.txt")),
        "open": lambda: storage.open_input(paid.uri("there.txt")).read(),
        "list": lambda: list(storage.match(paid.uri("*.txt"))),
        "write": lambda: storage.write_bytes(paid.uri("a.txt"), b"a"),
        "upload": lambda: storage.write_file(paid.uri("large"), local),
        "create": lambda: storage.create_if_absent(paid.uri("b.txt"), b"b"),
        "delete": lambda: storage.delete(paid.uri("a.txt")),
        "delete_tree": lambda: storage.delete_tree(paid.uri("b")),
    }
    for name, call in calls.items():
        with pytest.raises(PermissionError, match="--billing_project") as caught:
            call()
        assert paid.uri("")[:-1] in str(caught.value), name
    assert not paid.list("a")
    set_billing_project("my-project-1")
    paid.server.requests.clear()
    for call in calls.values():
        call()
    named = [request.query for request in paid.server.requests if "upload_id" not in request.query]
    assert {tuple(query["userProject"]) for query in named} == {("my-project-1",)}


def test_images_name_the_payer(paid: Bucket | FakeBucket) -> None:
    uri = paid.put("ü b.jpg", b"image")
    with pytest.raises(ImageError, match="--billing_project") as caught:
        fetch(uri, FetchOptions())
    assert caught.value.reason is Reason.FORBIDDEN
    assert len(paid.server.requests) == 1, "not tried again"
    assert isinstance(fetch(uri, FetchOptions(billing_project="example.com:p-1")), Fetched)
    assert paid.server.requests[-1].query["userProject"] == ["example.com:p-1"]
    set_billing_project("p-2")
    fetch(uri, FetchOptions())
    assert paid.server.requests[-1].query["userProject"] == ["p-2"]


@pytest.mark.parametrize("project", ["", "a b", "a&b=c", "Ä", "-a", 3])
def test_what_is_no_project(project: object) -> None:
    for call in (lambda: set_billing_project(project), lambda: FetchOptions(billing_project=project)):
        with pytest.raises(ValueError, match="billing_project"):
            call()
    assert billing_project() is None
