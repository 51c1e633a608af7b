from collections import Counter

import pytest

from beamlabel.transforms.inputs.sources.listing import ListingSource, listed
from beamlabel.transforms.inputs.sources.packed import Found, LeftOut
from beamlabel.transforms.inputs.sources.path_filter import PathFilter
from beamlabel.transforms.inputs.sources.source import SourceOptions
from beamlabel.transforms.records import InputFile
from support.places import LocalDirectory

JPEG = b"\xff\xd8\xff\xe0rest"
FILES = {
    ".DS_Store": b"\0\0\0\1Bud1",
    "@eaDir/a.jpg/SYNOPHOTO_THUMB_XL.jpg": JPEG,
    "README.md": b"# photos",
    "a.JPG": JPEG,
    "a.JPG.xmp": b"<x:xmpmeta/>",
    "album/ünï é#1.jpeg": JPEG,
    "album/0f3a": JPEG,
    "album/notes": b"some words",
    "broken.png": b"",
    "movie.mp4": b"\0\0\0\x20ftypisom",
}
IMAGES = ["a.JPG", "album/0f3a", "album/ünï é#1.jpeg", "broken.png"]
LEFT_OUT = {"hidden": 2, "not_an_image": 4}


@pytest.fixture(params=["local", "gs"])
def place(request, tmp_path):
    place = (
        LocalDirectory(tmp_path / "photos") if request.param == "local" else request.getfixturevalue("gcs")
    )
    for name, data in FILES.items():
        place.put(name, data)
    return place


def names(place, places):
    return [found.uri.removeprefix(place.url + "/") for found in places if isinstance(found, Found)]


def causes(places):
    return Counter(place.cause for place in places if isinstance(place, LeftOut))


def test_a_directory_gives_its_images_in_order_and_reports_other_files(place):
    places = list(listed(f"{place.url}/", PathFilter()))
    assert names(place, places) == IMAGES
    assert causes(places) == LEFT_OUT
    assert all(found.listing_stat[0] == len(FILES[name]) for found, name in
               zip((p for p in places if isinstance(p, Found)), IMAGES, strict=True))  # fmt: skip


def test_include_and_exclude_are_asked_before_names_and_content(place):
    places = list(listed(f"{place.url}/", PathFilter(("*.jpg", "*.jpeg", "0*"), ("@eaDir/",))))
    assert names(place, places) == ["a.JPG", "album/0f3a", "album/ünï é#1.jpeg"]
    assert causes(places) == {"excluded": 7}
    places = list(listed(f"{place.url}/*", PathFilter(exclude=("*.{md,xmp}",))))
    assert names(place, places) == ["a.JPG", "broken.png"]
    assert causes(places) == {"excluded": 2, "hidden": 1, "not_an_image": 1}


def test_only_files_whose_names_do_not_tell_are_opened(gcs):
    for name, data in FILES.items():
        gcs.put(name, data)
    before = gcs.server.count("GET")
    list(listed(f"{gcs.url}/", PathFilter()))
    unknown, listings = 2, 1
    assert gcs.server.count("GET") - before <= listings + 2 * unknown


def test_a_file_that_the_input_names_is_an_image_of_any_kind(place):
    for name in (".DS_Store", "README.md", "album/ünï é#1.jpeg"):
        path = f"{place.url}/{name}"
        assert list(listed(path, PathFilter(("*.png",)))) == [
            Found(path, next(iter(listed(path, PathFilter()))).listing_stat)
        ]


def test_units_count_left_out_files(place):
    source = ListingSource()
    file = InputFile(f"{place.url}/", "images")
    units = [
        planned.unit for planned in source.plan(0, file, SourceOptions(base_dir="/", shard_rows=2), None)
    ]
    assert [
        ref.uri.removeprefix(place.url + "/") for u in units for ref in source.refs(u, SourceOptions("/"))
    ] == IMAGES
    total = Counter()
    for unit in units:
        total.update(dict(unit.left_out))
    assert len(units) == 2 and total == LEFT_OUT
    assert (units[0].start, units[0].stop, units[1].start, units[1].stop) == (
        0,
        units[1].start,
        units[0].stop,
        10,
    )
    assert source.estimate(file, SourceOptions("/")) == 5
