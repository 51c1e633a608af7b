"""The images that no unit refers to."""

import random

import pytest

from beamlabel.transforms.inputs.key_index import KeyIndex
from beamlabel.transforms.inputs.seen_images import SeenImages, unseen_images
from beamlabel.transforms.records import Failure, ImageRef, Reason, Stage
from beamlabel.transforms.storage.identity import image_id, image_id_of_bytes


def ref(location, **fields):
    return ImageRef(location, f"list#{location}", location, **fields)


@pytest.mark.parametrize("count", [0, 1, 7, 8, 9, 1000])
def test_what_no_unit_refers_to_is_unseen(tmp_path, count):
    locations = [f"/photos/{number}.png" for number in range(count)]
    keys = sorted(bytes.fromhex(image_id(location)) for location in locations)
    live = KeyIndex(b"".join(key + bytes(8) for key in keys), 8)
    shuffle = random.Random(count)
    there = [location for location in locations if shuffle.random() < 0.5]
    units = {}
    for name in ("one", "two", "three"):
        units[name] = SeenImages(live)
        units[name].stage(str(tmp_path / "earlier"), name)
    for location in (*there, *there[:3], "/photos/new.png"):
        seen = shuffle.choice(list(units.values())).see(ref(location))
        assert seen.image_id == image_id(location)
    for name, unit in units.items():
        assert not SeenImages.is_staged(str(tmp_path), name)
        unit.stage(str(tmp_path), name)
        assert SeenImages.is_staged(str(tmp_path), name)
    gone = {image_id(location) for location in set(locations) - set(there)}
    assert {live[place].hex() for place in unseen_images(str(tmp_path), units, count).places()} == gone
    assert unseen_images(str(tmp_path / "earlier"), units, count).count == count


def test_inline_images_and_failures(tmp_path):
    live = KeyIndex(bytes.fromhex(image_id_of_bytes(b"image")))
    seen = SeenImages(live)
    failure = Failure(None, "list#0", Stage.OPEN, Reason.NULL_URI, "null")
    assert seen.see(failure) is failure
    assert seen.see(ref("list#1", data=b"image")).image_id == live[0].hex()
    seen.stage(str(tmp_path), "unit")
    assert unseen_images(str(tmp_path), ["unit"], 1).count == 0


def test_a_unit_that_told_nothing_is_no_empty_unit(tmp_path):
    with pytest.raises(FileNotFoundError):
        unseen_images(str(tmp_path), ["unit"], 1)
