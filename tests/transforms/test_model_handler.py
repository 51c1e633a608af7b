"""``RunInference(ModelHandler(module))``: arrays of any size, keys, failures of one image, and newer models."""

import shutil

import apache_beam as beam
import numpy as np
import pytest
from apache_beam.ml.inference.base import KeyedModelHandler, ModelMetadata, PredictionResult, RunInference
from apache_beam.options.pipeline_options import PipelineOptions
from apache_beam.runners.direct.direct_runner import BundleBasedDirectRunner
from apache_beam.runners.portability.fn_api_runner import FnApiRunner
from apache_beam.testing.test_stream import TestStream
from apache_beam.transforms.window import FixedWindows, TimestampedValue
from PIL import Image

from beamlabel import FailedImage, LabelImages, LoadImages, ModelHandler, Predict, SplitOutcomes
from beamlabel.transforms.records import LoadedImage
from support.collect import Collect
from support.jobs import TINY, photos

NAMES = [f"class {number}" for number in range(11)]


def infer(images, handler, **arguments):
    results = Collect()
    with beam.Pipeline(runner=FnApiRunner()) as p:
        _ = p | beam.Create(images, reshuffle=False) | RunInference(handler, **arguments) | results
    return results.values


def arrays(paths):
    return [np.asarray(Image.open(path).convert("RGB")) for path in paths]


@pytest.fixture(scope="module")
def handler():
    return ModelHandler(TINY, class_names=NAMES, batch_size=4)


@pytest.fixture
def labeled(tmp_path):
    """Images and the results of ``LabelImages`` for them by URI."""
    paths = photos(tmp_path, 6)
    predictions = Collect()
    with beam.Pipeline(runner=FnApiRunner()) as p:
        _ = (
            p | beam.Create([*map(str, paths)]) | LabelImages(TINY, class_names=NAMES)
        ).predictions | predictions
    return paths, {row.uri: row for row in predictions.values}


def assert_same(inference, row):
    assert inference["class_ids"].tolist() == row.class_ids and inference["label"] == row.label
    assert inference["scores"].dtype == np.float32 and inference["scores"].shape == (5,)
    np.testing.assert_allclose(inference["embedding"], row.embedding, rtol=1e-6)
    assert inference["labels"] == tuple(row.labels) and inference["score"] == row.score


def test_arrays_of_any_size_give_what_their_files_give(labeled, handler):
    paths, rows = labeled
    results = infer(arrays(paths), handler)
    assert [result.example.shape for result in results] == [(40, 48, 3)] * 6
    for path, result in zip(paths, results, strict=True):
        assert isinstance(result, PredictionResult) and result.model_id == TINY
        assert_same(result.inference, rows[str(path)])


def test_loaded_images_and_keys(labeled, handler):
    paths, rows = labeled
    results = Collect()
    with beam.Pipeline(runner=FnApiRunner()) as p:
        _ = (
            p
            | beam.Create([*map(str, paths)])
            | LoadImages(handler.image_size)
            | beam.Map(lambda image: (image.ref.uri, image))
            | RunInference(KeyedModelHandler(handler))
            | results
        )
    assert {key for key, _ in results.values} == set(rows)
    for key, result in results.values:
        assert isinstance(result.example, LoadedImage) and result.example.ref.uri == key
        assert_same(result.inference, rows[key])


def test_an_image_that_was_not_loaded_keeps_its_place(labeled, handler):
    paths, rows = labeled
    results = Collect()
    with beam.Pipeline(runner=FnApiRunner()) as p:
        uris = p | beam.Create([str(paths[0]), "missing.png"])
        _ = uris | LoadImages(handler.image_size) | RunInference(handler) | results
    found = {type(result.inference).__name__: result.inference for result in results.values}
    assert_same(found["dict"], rows[str(paths[0])])
    assert found["FailedImage"].reason == "not_found"


def test_the_steps_one_by_one_are_the_whole(labeled):
    paths, rows = labeled
    predictions, failures = Collect(), Collect()
    predict = Predict(TINY, class_names=NAMES)
    with beam.Pipeline(runner=FnApiRunner()) as p:
        uris = p | beam.Create([{"uri": str(path)} for path in [*paths, "missing.png"]])
        outcomes = uris | LoadImages((32, 32)) | predict | SplitOutcomes(predict.spec)
        _ = outcomes.predictions | "Predictions" >> predictions
        _ = outcomes.failures | "Failures" >> failures
    assert {row["uri"]: row["label"] for row in predictions.values} == {
        u: row.label for u, row in rows.items()
    }
    assert [(row["uri"], row["reason"]) for row in failures.values] == [("missing.png", "not_found")]


def test_predict_takes_images_of_another_size(tmp_path):
    (path,) = photos(tmp_path, 1)
    results = Collect()
    with beam.Pipeline(runner=FnApiRunner()) as p:
        _ = p | beam.Create([str(path)]) | LoadImages((40, 48)) | Predict(TINY) | results
    (prediction,) = results.values
    assert prediction.class_ids.shape == (5,)


def test_an_image_that_the_module_fails_on_takes_down_only_itself(handler, monkeypatch):
    from beamlabel.transforms.inference import predict

    images = [np.full((32, 32, 3), value, np.uint8) for value in (1, 2, 3)]
    run = predict._predict_batch

    def faulty(batch, *arguments):
        if any(image.pixels[0, 0, 0] == 2 for image in batch):
            raise RuntimeError("this image")
        return run(batch, *arguments)

    monkeypatch.setattr(predict, "_predict_batch", faulty)
    first, failed, last = (result.inference for result in infer(images, handler))
    assert isinstance(failed, FailedImage) and failed.reason == "inference_error"
    assert first["class_ids"].shape == last["class_ids"].shape == (5,)


@pytest.mark.parametrize(
    "image",
    [
        "a.jpg",
        None,
        np.zeros((4, 4, 3), np.float32),
        np.zeros((4, 4), np.uint8),
        np.zeros((4, 4, 4), np.uint8),
        np.zeros((0, 4, 3), np.uint8),
        np.zeros((1, 4, 4, 3), np.uint8),
    ],
    ids=lambda image: f"{getattr(image, 'dtype', image)} {getattr(image, 'shape', '')}",
)
def test_files_other_than_images_are_refused(handler, image):
    with pytest.raises(TypeError, match="ModelHandler"):
        handler.run_inference([image], handler.load_model())


def test_a_newer_model_takes_over(tmp_path, handler):
    """The metadata of a newer model arrives between two images; it may name an artifact or a module."""
    newer = tmp_path / "newer.beamlabel"
    ModelHandler(TINY, top_k=2).save_artifact(str(newer))
    image = np.full((32, 32, 3), 100, np.uint8)
    older = str(shutil.copyfile(TINY, tmp_path / "older.tar.gz"))
    module = str(shutil.copyfile(TINY, tmp_path / "module.tar.gz"))
    for model in (str(newer), module):
        results = Collect()
        stream = TestStream().advance_watermark_to(0)
        for start, one in ((0, older), (10, model)):
            stream.add_elements([TimestampedValue(ModelMetadata(one, one), start)], tag="models")
            stream.add_elements([TimestampedValue(start, start + 1)], tag="images")
            stream.advance_watermark_to(start + 10, tag="models").advance_watermark_to(
                start + 10, tag="images"
            )
        stream.advance_watermark_to_infinity(tag="models").advance_watermark_to_infinity(tag="images")
        with beam.Pipeline(runner=BundleBasedDirectRunner(), options=PipelineOptions(["--streaming"])) as p:
            parts = p | stream
            # A window has one model, since the in-memory runner does not support side inputs that a trigger replaces.
            models = parts["models"] | "Models" >> beam.WindowInto(FixedWindows(10))
            images = parts["images"] | "Images" >> beam.WindowInto(FixedWindows(10))
            images |= beam.Map(lambda _, image=image: image)
            _ = images | RunInference(handler, model_metadata_pcoll=models) | results
        assert [result.model_id for result in results.values] == [older, model]


def test_update_model_path_as_beam_calls_it(tmp_path, handler):
    newer = str(tmp_path / "newer.beamlabel")
    fresh = ModelHandler(TINY, class_names=NAMES)
    fresh.save_artifact(newer)
    with pytest.raises(ValueError, match="path"):
        fresh.save_artifact(str(tmp_path / "newer.bin"))
    for path, expected in (("", TINY), (None, TINY), (newer, newer), ("", newer)):
        fresh.update_model_path(path)
        assert fresh.load_model().model_id == expected
    fresh.update_model_path(str(tmp_path / "missing.beamlabel"))
    with pytest.raises(ValueError, match="module"):
        fresh.load_model()


def test_the_artifact_is_put_where_workers_read_it(tmp_path):
    handler = ModelHandler(TINY, artifact_dir=str(tmp_path))
    (staged,) = tmp_path.rglob("*.beamlabel")
    assert handler.load_model().engine.spec.num_classes == 11
    before = staged.stat().st_mtime_ns
    ModelHandler(TINY, artifact_dir=str(tmp_path))
    assert staged.stat().st_mtime_ns == before


@pytest.mark.parametrize("seconds", [0, -1, float("nan"), float("inf")])
def test_a_wait_that_is_none_is_refused(seconds):
    with pytest.raises(ValueError, match="max_batch_duration_secs"):
        ModelHandler(TINY, max_batch_duration_secs=seconds)


def test_arguments_that_a_module_does_not_take_are_refused(handler):
    with pytest.raises(ValueError, match=r"inference_args.*temperature"):
        infer([np.zeros((8, 8, 3), np.uint8)], handler, inference_args={"temperature": 2})


def test_paths_are_taken(tmp_path):
    (tmp_path / "names.txt").write_text("\n".join(NAMES))
    handler = ModelHandler(TINY, class_names=tmp_path / "names.txt", artifact_dir=tmp_path / "staged")
    handler.save_artifact(tmp_path / "saved.beamlabel")
    (result,) = infer([np.zeros((8, 8, 3), np.uint8)], handler)
    assert result.inference["label"] in NAMES
    for kind in (LabelImages, Predict):
        same = kind(
            tmp_path / "saved.beamlabel", class_names=tmp_path / "names.txt", artifact_dir=tmp_path / "staged"
        )
        assert same.spec.has_labels
