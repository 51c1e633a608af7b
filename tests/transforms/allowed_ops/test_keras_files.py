"""Damaged ``.keras`` files: they have no finding, and Keras refuses them later."""

import io
import json
import zipfile

import pytest

from beamlabel.transforms.allowed_ops.keras_file import unsafe_in_keras_file

CONFIG = json.dumps({"class_name": "Functional", "config": {"name": "m", "layers": [*range(300)]}})
METHODS = {"deflate": zipfile.ZIP_DEFLATED, "bz2": zipfile.ZIP_BZIP2, "lzma": zipfile.ZIP_LZMA}


@pytest.mark.parametrize("method", METHODS)
def test_each_byte_may_be_wrong(tmp_path, method):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", METHODS[method]) as archive:
        archive.writestr("config.json", CONFIG)
    path = tmp_path / "m.keras"
    for at in range(0, len(buffer.getvalue()), 3):
        data = bytearray(buffer.getvalue())
        data[at] ^= 0x55
        path.write_bytes(data)
        assert unsafe_in_keras_file(path) == [], at


def test_a_file_may_be_cut_anywhere(tmp_path):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("config.json", CONFIG)
    whole = buffer.getvalue()
    end = whole.index(b"PK\1\2")
    path = tmp_path / "m.keras"
    for cut in range(1, end - 41):
        # The directory claims the missing bytes, which are those after the member's beginning.
        path.write_bytes(whole[: end - cut] + whole[end:])
        assert unsafe_in_keras_file(path) == [], cut
