"""The whole pipeline against TensorFlow's decoding and resizing, with real weights.

The only remaining difference is that the pipeline's resized pixels are integers. Over 2,000 of these crops,
TensorFlow's own resize with rounding gives a top-1 agreement of 99.05 %, and the pipeline 99.15 %.
"""

import numpy as np
import pytest
from PIL import Image

from beamlabel.pipeline.demo.sample import sample_photos
from support.jobs import label, uri_list
from support.paths import SHARED_MODULES

MODULE = SHARED_MODULES / "mobilenet_v2_100_224_classification_1.tar.gz"
CROPS = 400

pytestmark = pytest.mark.skipif(not MODULE.exists(), reason="needs ../shared/modules, which is not shipped")


def crops(directory, count, *, size=None):
    """Crops of the sample photographs in many regions, sizes and aspects; JPEG, or PNG of one size.

    None has a color profile, since TensorFlow's readers would ignore it (one photograph's is Adobe RGB).
    """
    directory.mkdir()
    photos = [Image.open(path).convert("RGB") for path in sample_photos()]
    rng = np.random.default_rng(5)
    paths = []
    for number in range(count):
        photo = photos[number % len(photos)]
        width, height = (int(side * rng.uniform(0.5, 1)) for side in photo.size)
        left, top = (
            int(rng.uniform(0, full - part)) for full, part in zip(photo.size, (width, height), strict=True)
        )
        crop = photo.crop((left, top, left + width, top + height))
        if size:
            paths.append(directory / f"{number:03d}.png")
            crop.resize(size).save(paths[-1], icc_profile=None)
        else:
            paths.append(directory / f"{number:03d}.jpg")
            crop.save(paths[-1], quality=int(rng.integers(70, 96)), subsampling=int(rng.integers(0, 3)))
    return paths


@pytest.fixture(scope="module")
def reference(tmp_path_factory):
    """The module, called as its own page describes, on images that TensorFlow reads and resizes."""
    import tensorflow as tf
    import tensorflow_hub as hub

    directory = tmp_path_factory.mktemp("module")
    import shutil

    shutil.unpack_archive(MODULE, directory)
    loaded = hub.load(str(directory), tags=[])

    def call(path):
        data = path.read_bytes()
        jpeg = path.suffix == ".jpg"
        pixels = (
            tf.io.decode_jpeg(data, 3, dct_method="INTEGER_ACCURATE") if jpeg else tf.io.decode_png(data, 3)
        )
        images = tf.image.resize(tf.cast(pixels, tf.float32), (224, 224))[None] / 255
        logits = loaded.signatures["image_classification"](images)["default"]
        features = loaded.signatures["image_feature_vector"](images)["default"]
        return logits.numpy()[0], features.numpy()[0]

    call.module = loaded  # keeps the module alive for its variables
    return call


@pytest.mark.long
def test_top_1_agrees_on_photographs(tmp_path, reference):
    paths = crops(tmp_path / "crops", CROPS)
    job = label(tmp_path / "out", "--input", uri_list(tmp_path / "l.txt", paths), module=MODULE)
    ours = {row["uri"]: row["class_ids"][0] for row in job.rows}
    theirs = {str(path): int(reference(path)[0].argmax()) for path in paths}
    assert len(ours) == CROPS and len(set(ours.values())) > 10
    agreement = sum(ours[uri] == theirs[uri] for uri in theirs) / CROPS
    assert agreement >= 0.99


def test_embeddings_of_pngs_of_the_modules_size_are_equal(tmp_path, reference):
    paths = crops(tmp_path / "crops", 24, size=(224, 224))
    job = label(tmp_path / "out", "--input", uri_list(tmp_path / "l.txt", paths), module=MODULE)
    for row in job.rows:
        (path,) = [path for path in paths if str(path) == row["uri"]]
        logits, features = reference(path)
        np.testing.assert_allclose(row["embedding"], features, atol=1e-4)
        assert row["class_ids"] == np.argsort(-logits)[:5].tolist()


def test_top_1_agrees_on_photographs_decoded_at_a_fraction(tmp_path, reference):
    # Sides that are not divisible by 4: the last column and row stand for one pixel of four.
    paths = crops(tmp_path / "crops", 24)
    for path in paths:
        with Image.open(path) as crop:
            large = crop.resize((4001, 3001), Image.Resampling.BICUBIC)
        large.save(path, quality=88)
    job = label(tmp_path / "out", "--input", uri_list(tmp_path / "l.txt", paths), module=MODULE)
    ours = {row["uri"]: row["class_ids"][0] for row in job.rows}
    equal = [ours[str(path)] == int(reference(path)[0].argmax()) for path in paths]
    assert sum(equal) >= 23
