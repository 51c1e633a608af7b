"""Results for images that are known or cannot be fetched."""

import pytest

from beamlabel.transforms.loading.fetch import Fetched, FetchOptions
from beamlabel.transforms.loading.known_images import skipped_as_known, with_listed_version, with_stat
from beamlabel.transforms.records import Failure, ImageRef, Known, Reason, Skipped, SkipReason, Stage
from beamlabel.transforms.storage.identity import content_bits, content_hash

DATA = b"an image"
BITS = content_bits(content_hash(DATA))


def ref(location="/photos/a.png", **fields):
    return ImageRef(location, "list#0", location, **fields)


@pytest.mark.parametrize(
    ("known", "reason"),
    [
        (None, None),
        (Known(), None),
        (Known(row=BITS), SkipReason.UNCHANGED),
        (Known(failure=BITS), SkipReason.KNOWN_FAILURE),
        (Known(row=BITS ^ 1, failure=BITS), SkipReason.KNOWN_FAILURE),
        (Known(row=BITS, failure=BITS ^ 1), SkipReason.UNCHANGED),
        (Known(row=BITS ^ 1, failure=BITS ^ 2), None),
    ],
)
def test_the_content_decides(known, reason):
    given = ref(data=DATA, known=known)
    found = skipped_as_known(given, Fetched(DATA, "7"))
    if reason is None:
        assert found is None
    else:
        assert found == Skipped(ref(known=known), reason, len(DATA), "7", content_hash(DATA))


def test_the_listing_tells_a_version_that_fetching_does_not():
    listed = ref(listing_stat=(8, "3"))
    assert with_listed_version(Fetched(DATA, None), listed).version == "3"
    assert with_listed_version(Fetched(DATA, "4"), listed).version == "4"
    assert with_listed_version(Fetched(DATA, None), ref()).version is None


@pytest.mark.parametrize(
    ("content", "reason", "told"),
    [
        (b"", Reason.EMPTY_FILE, 0),
        (b"12345", Reason.TOO_MANY_BYTES, 5),
        # The image was replaced since, and its current version did not fail.
        (b"1", Reason.EMPTY_FILE, None),
        (b"1234", Reason.TOO_MANY_BYTES, None),
        (None, Reason.EMPTY_FILE, None),
        (b"", Reason.TIMEOUT, None),
    ],
)
def test_size_and_version_count_if_they_give_the_same_failure(tmp_path, content, reason, told):
    path = tmp_path / "a.png"
    if content is not None:
        path.write_bytes(content)
    failure = Failure(str(path), "list#0", Stage.FETCH, reason, "detail")
    found = with_stat(failure, ref(str(path)), FetchOptions(max_bytes=4))
    version = None if told is None else str(path.stat().st_mtime_ns)
    assert (found.source_bytes, found.source_version) == (told, version)


def test_an_inline_image_that_is_too_large():
    failure = Failure("a", "list#0", Stage.FETCH, Reason.TOO_MANY_BYTES, "detail")
    assert with_stat(failure, ref(data=DATA), FetchOptions(max_bytes=4)).source_bytes == len(DATA)
    web = ref("https://example.com/a.png")
    assert with_stat(failure, web, FetchOptions(max_bytes=4)) is failure
