"""``--color_profile``: its effect on rows, and its entry in the manifest."""

import numpy as np
from PIL import Image

from beamlabel.transforms.decoding.picture import color
from support.jobs import label, photos, uri_list


def test_converted_images_are_counted_and_are_other_rows(tmp_path):
    paths = photos(tmp_path / "photos", 3)
    # Display P3 by its code points in ITU-T H.273.
    wide = color.profile_of_code_points(12, 13)
    with Image.open(paths[1]) as image:
        image.save(paths[1], icc_profile=wide)
    source = ("--input", uri_list(tmp_path / "list.txt", paths))
    converted = label(tmp_path / "converted", *source)
    assert converted.code == 0 and converted.manifest["color_converted"] == 1
    ignored = label(tmp_path / "ignored", *source, "--color_profile", "ignore")
    assert ignored.code == 0 and ignored.manifest["color_converted"] == 0
    same = [
        np.array_equal(one["embedding"], other["embedding"])
        for one, other in zip(converted.rows, ignored.rows, strict=True)
    ]
    assert same == [True, False, True]
    # Rows with one setting do not count as labeled with the other.
    again = label(
        tmp_path / "again", *source, "--color_profile", "ignore", "--skip_labeled", converted.output
    )
    assert again.manifest["rows"]["predicted"] == 3
