"""``LabelImages`` in users' pipelines: every element kind comes out as it went in, with added fields."""

import dataclasses
import os
import pickle
import typing
from pathlib import Path

import apache_beam as beam
import numpy as np
import pytest
from apache_beam.io import fileio
from apache_beam.runners.portability.fn_api_runner import FnApiRunner
from apache_beam.testing.util import assert_that, equal_to
from apache_beam.transforms.window import FixedWindows, TimestampedValue

from beamlabel import FailedImage, LabeledImage, LabelImages
from beamlabel.transforms.decoding.decode import DecodeOptions
from beamlabel.transforms.elements.result_types import FAILURE_FIELDS
from beamlabel.transforms.inference.artifact import ModuleError
from beamlabel.transforms.load_images import LoadImages
from beamlabel.transforms.loading.fetch import FetchOptions
from beamlabel.transforms.loading.load_options import LoadOptions
from beamlabel.transforms.records import ImageInfo, ImageRef, LoadedImage
from beamlabel.transforms.writing.write_unit import WriteUnit
from support.collect import Collect
from support.jobs import TINY, TINY_FEATURES, photos
from support.outputs import PLAIN

OPTIONS = LoadOptions(FetchOptions(), DecodeOptions(32, 32))
NAMES = [f"class {number}" for number in range(11)]


class Photo(typing.NamedTuple):
    uri: str
    customer: int


@dataclasses.dataclass
class Order:
    uri: str
    customer: int


def label(elements, **arguments):
    """Runs the elements through a real runner: (predictions, failures)."""
    predictions, failures = Collect(), Collect()
    with beam.Pipeline(runner=FnApiRunner()) as p:
        images = p | beam.Create(elements, reshuffle=False)
        labeled = images | LabelImages(**{"module": TINY, "class_names": NAMES, **arguments})
        _ = labeled.predictions | "Predictions" >> predictions
        _ = labeled.failures | "Failures" >> failures
    return predictions.values, failures.values


@pytest.fixture
def paths(tmp_path):
    """A good image and a file that is not an image."""
    good, bad = photos(tmp_path, 2)
    bad.write_bytes(b"no image")
    return good, bad


def test_bare_uris_and_paths_become_labeled_images(paths):
    for kind in (str, Path):
        good, bad = (kind(path) for path in paths)
        (labeled,), (failed,) = label([good, bad])
        assert isinstance(labeled, LabeledImage) and labeled.uri == str(good)
        assert labeled.label == labeled.labels[0] == NAMES[labeled.class_ids[0]]
        assert (
            labeled.score == labeled.scores[0] and len(labeled.scores) == 5 and len(labeled.embedding) == 64
        )
        assert (labeled.width, labeled.height, labeled.format) == (48, 40, "png")
        assert labeled.module_handle.endswith(Path(TINY).name)
        assert isinstance(failed, FailedImage)
        assert (failed.uri, failed.stage, failed.reason) == (str(bad), "decode", "not_an_image")


def test_file_names_that_are_no_utf_8(paths):
    odd = paths[0].with_name(os.fsdecode(b"\xff.png"))
    odd.write_bytes(paths[0].read_bytes())
    with beam.Pipeline(runner=FnApiRunner()) as p:
        images = p | beam.Create([odd, odd.with_name(os.fsdecode(b"missing \xff.png"))])
        # Rows with a schema, through their coder.
        labeled = images | LabelImages(TINY)
        for part, name in zip(labeled, ("\\udcff.png", "missing \\udcff.png"), strict=True):
            uris = (
                part | f"Shuffle {name}" >> beam.Reshuffle() | f"Name {name}" >> beam.Map(lambda row: row.uri)
            )
            assert_that(uris, equal_to([f"{odd.parent}/{name}"]), label=name)


def test_modules_without_classes(paths):
    (labeled,), _ = label([{"uri": str(paths[0])}], module=TINY_FEATURES, class_names=None)
    assert len(labeled["embedding"]) == 64 and not {"label", "score", "class_ids"} & labeled.keys()
    (labeled,), _ = label([str(paths[0])], module=TINY_FEATURES, class_names=None)
    assert labeled.score is labeled.label is labeled.class_ids is None


def test_bytes(paths):
    good, bad = (path.read_bytes() for path in paths)
    (labeled,), (failed,) = label([good, bad])
    assert labeled.uri is failed.uri is None
    assert labeled.source_bytes == len(good)
    assert failed.reason == "not_an_image"
    assert label([good, b""])[1][0].reason == "empty_file"


def test_pairs_keep_their_keys(paths):
    good, bad = paths
    elements = [(1, str(good)), (2, {"uri": str(good), "n": 1}), (3, str(bad)), ((4, "x"), ("inner", good))]
    predictions, failures = label(elements)
    by_key = dict(predictions)
    assert set(by_key) == {1, 2, (4, "x")}
    assert isinstance(by_key[1], LabeledImage) and by_key[2]["n"] == 1
    assert by_key[4, "x"][0] == "inner" and isinstance(by_key[4, "x"][1], LabeledImage)
    assert [(key, failed.reason) for key, failed in failures] == [(3, "not_an_image")]


def test_dicts_keep_their_fields(paths):
    good, bad = map(str, paths)
    elements = [{"uri": good, "customer": 7, "tags": ["a"]}, {"uri": bad, "customer": 8}]
    (labeled,), (failed,) = label(elements)
    assert {**labeled, **elements[0]} == labeled and {**failed, **elements[1]} == failed
    assert set(labeled) - set(elements[0]) == set(LabeledImage._fields) - {"uri"}
    assert set(failed) - set(elements[1]) == set(FAILURE_FIELDS)


@pytest.mark.parametrize("make", [Photo, Order, lambda uri, customer: beam.Row(uri=uri, customer=customer)])
def test_rows_get_our_fields_and_a_schema(paths, make):
    good, bad = map(str, paths)
    (labeled,), (failed,) = label([make(good, 7), make(bad, 8)])
    assert (labeled.uri, labeled.customer, labeled.label) == (good, 7, labeled.labels[0])
    assert (failed.uri, failed.customer, failed.reason) == (bad, 8, "not_an_image")
    with beam.Pipeline(runner=FnApiRunner()) as p:
        create = beam.Create([make(good, 7), make(good, 8)])
        rows = p | (create.with_output_types(Order) if make is Order else create)
        found = rows | LabelImages(TINY, class_names=NAMES)
        names = [name for name, _ in found.predictions.element_type._fields]
        assert names[:2] == ["uri", "customer"] and set(LabeledImage._fields) <= set(names)
        # Through the coder of the schema and back.
        grouped = found.predictions | beam.GroupBy("label").aggregate_field(
            "customer", beam.combiners.CountCombineFn(), "count"
        )
        assert_that(grouped | beam.Map(lambda row: (row.label, row.count)), equal_to([(labeled.label, 2)]))


def test_files_that_beam_matched(paths):
    good, bad = paths
    with beam.Pipeline(runner=FnApiRunner()) as p:
        files = p | fileio.MatchFiles(str(good.parent / "*.png")) | fileio.ReadMatches()
        labeled = files | LabelImages(TINY)
        assert labeled.predictions.element_type is LabeledImage
        assert_that(labeled.predictions | beam.Map(lambda row: row.uri), equal_to([str(good)]))
        assert_that(labeled.failures | beam.Map(lambda row: row.uri), equal_to([str(bad)]), label="failures")


def test_dicts_of_any_keys(paths):
    (labeled,), _ = label([{"uri": str(paths[0]), 3: 4}])
    assert labeled[3] == 4


def test_details_name_arguments(paths):
    (failed,) = label([str(paths[0])], max_bytes=10)[1]
    assert "max_bytes 10" in failed.detail and "--" not in failed.detail


def test_images_in_a_field(paths):
    good, bad = paths
    elements = [
        {"uri": "a", "image": good.read_bytes()},
        {"uri": str(good), "image": None},
        {"image": good.read_bytes()},
        {"uri": "b", "image": bad.read_bytes()},
        {"uri": "c", "image": b""},
        {"uri": "d", "image": "text"},
        {"uri": None, "image": None},
    ]
    predictions, failures = label(elements, image="image")
    assert {row.get("uri") for row in predictions} == {"a", str(good), None} and len(predictions) == 3
    assert {row["uri"]: row["reason"] for row in failures} == {
        "b": "not_an_image", "c": "empty_file", "d": "not_an_image", None: "null_uri",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("element", "reason"),
    [
        (None, "null_uri"),
        ("", "null_uri"),
        ({}, "null_uri"),
        ({"uri": None}, "null_uri"),
        ({"uri": ""}, "null_uri"),
        ({"uri": float("nan")}, "null_uri"),
        ({"uri": 7}, "invalid_uri"),
        ({"uri": b"\xff"}, "invalid_uri"),
        ({"uri": ["a.jpg"]}, "invalid_uri"),
        (("key", None), "null_uri"),
        (("key", ""), "null_uri"),
        ({"uri": "a.jpg", "label": "taken"}, "field_taken"),
        ({"uri": "a.jpg", "reason": "taken"}, "field_taken"),
    ],
    ids=repr,
)
def test_elements_without_an_image_are_failures(element, reason):
    predictions, (failed,) = label([element])
    assert predictions == []
    if isinstance(element, tuple):
        key, failed = failed
        assert key == element[0]
    if isinstance(failed, dict):
        assert failed["reason"] == reason
        whole = failed["element"] if reason == "field_taken" else failed
        assert all(whole[name] == value for name, value in element.items() if value == value)
    else:
        assert failed.reason == reason


@pytest.mark.parametrize(
    "unknown", [7, 1.5, ["a.jpg"], ("a", "b", "c"), np.zeros((2, 2, 3), np.uint8)], ids=repr
)
def test_elements_that_hold_no_image_are_a_mistake(unknown):
    with pytest.raises(TypeError, match="hold no image"), beam.Pipeline(runner=FnApiRunner()) as p:
        _ = p | beam.Create([unknown]) | LabelImages(TINY)
    with pytest.raises(Exception, match="hold no image"), beam.Pipeline(runner=FnApiRunner()) as p:
        _ = p | beam.Create([unknown]).with_output_types(typing.Any) | LabelImages(TINY)


def test_added_fields_can_have_a_prefix(paths):
    good, _ = map(str, paths)
    with beam.Pipeline(runner=FnApiRunner()) as p:
        rows = p | beam.Create([{"uri": good, "width": 3}])
        once = rows | "A" >> LabelImages(TINY, prefix="a_", class_names=NAMES)
        twice = once.predictions | "B" >> LabelImages(TINY, prefix="b_", top_k=1, embeddings=False)
        assert_that(
            twice.predictions | beam.Map(lambda row: (row["width"], row["a_width"], len(row["b_scores"]))),
            equal_to([(3, 48, 1)]),
        )
    with pytest.raises(ValueError, match=r"prefix=''.*'width'"), beam.Pipeline(runner=FnApiRunner()) as p:
        _ = p | beam.Create([beam.Row(uri="a", width=3)]) | LabelImages(TINY)
    with pytest.raises(TypeError, match=r"uri='url'.*customer"), beam.Pipeline(runner=FnApiRunner()) as p:
        _ = p | beam.Create([Photo("a", 1)]) | LabelImages(TINY, uri="url")


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ({"top_k": 12}, "top_k"),
        ({"top_k": -1}, "top_k"),
        ({"top_k": 0}, "top_k"),
        ({"prefix": "a b"}, "prefix"),
        ({"uri": "x", "image": "x"}, "uri and image"),
        ({"class_names": ["one"]}, "class_names"),
        ({"class_names": "/missing/names.txt"}, "class_names"),
        ({"scores": "max"}, "scores"),
        ({"crop": 2}, "crop"),
        ({"image_size": (64, 64)}, "image_size"),
        ({"input_range": (0.0, 3.0)}, "input_range"),
        ({"engine": "fast"}, "engine"),
        ({"precision": "int4"}, "precision"),
        ({"uri": ""}, "uri"),
        ({"image": 3}, "image"),
        ({"prefix": None}, "prefix"),
        ({"max_bytes": 0}, "max_bytes"),
        ({"max_pixels": 0}, "max_pixels"),
        ({"fetch_deadline": 0}, "fetch_deadline"),
        ({"allow_http": "yes"}, "allow_http"),
        ({"http_headers": ["A=b"]}, "http_headers"),
        ({"http_headers": {"A": 3}}, "http_headers"),
        ({"http_headers": {"A": "b\r\nC: d"}}, "http_headers"),
        ({"user_agent": ""}, "user_agent"),
        ({"ignore_robots_tag": 1}, "ignore_robots_tag"),
        ({"http_per_host": 0}, "http_per_host"),
        ({"billing_project": "a b"}, "billing_project"),
        ({"color_profile": "drop"}, "color_profile"),
        ({"batch_size": 0}, "batch_size"),
        ({"load_threads": 0}, "load_threads"),
        ({"worker_threads": 0}, "worker_threads"),
        ({"max_batch_duration_secs": 0}, "max_batch_duration_secs"),
        ({"embeddings": "yes"}, "embeddings"),
        ({"top_k": 2.5}, "top_k"),
        ({"top_k": True}, "top_k"),
        ({"class_names": [1, 2]}, "class_names"),
        ({"normalize_embeddings": 3}, "normalize_embeddings"),
        ({"artifact_dir": 3}, "artifact_dir"),
        ({"artifact_dir": ""}, "artifact_dir"),
        ({"batch_size": "many"}, "batch_size"),
        ({"logits_output": 1}, "logits_output"),
        ({"base_dir": 3}, "base_dir"),
        ({"image_size": (32,)}, "image_size"),
        ({"image_size": ("32", "32")}, "image_size"),
        ({"input_range": "01"}, "input_range"),
        ({"class_names": set(NAMES)}, "class_names"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_mistakes_raise_when_the_transform_is_made(arguments, named):
    with pytest.raises(ValueError, match=named):
        LabelImages(TINY, **arguments)


def test_what_means_the_same_is_taken():
    labels = LabelImages(TINY, top_k=np.int64(3), image_size=[32, 32], crop=np.float32(0.5), fetch_deadline=5)
    assert labels.spec.top_k == 3
    with pytest.raises(TypeError, match=r"LabelImages.*topk.*'top_k'"):
        LabelImages(TINY, topk=3)
    with pytest.raises(TypeError, match="LabelImages"):
        LabelImages()
    with pytest.raises(TypeError, match=r"beam\.Create"), beam.Pipeline(runner=FnApiRunner()) as p:
        _ = p | LabelImages(TINY)


def test_an_unknown_module_raises_when_the_transform_is_made(tmp_path):
    for module in (str(tmp_path / "missing"), "", tmp_path):
        with pytest.raises(ModuleError, match="module"):
            LabelImages(module)


def test_windows_and_timestamps_are_kept(paths):
    with beam.Pipeline(runner=FnApiRunner()) as p:
        timed = (
            p
            | beam.Create([(0, paths[0]), (1, paths[1]), (2, paths[0])])
            | beam.MapTuple(lambda i, path: TimestampedValue((i, str(path)), 100 * i + 7))
        )
        labeled = timed | beam.WindowInto(FixedWindows(100)) | LabelImages(TINY)
        for name, expected in (("predictions", [(0, 7, 0), (2, 207, 200)]), ("failures", [(1, 107, 100)])):
            seen = getattr(labeled, name) | f"See {name}" >> beam.Map(
                lambda pair, window=beam.DoFn.WindowParam, timestamp=beam.DoFn.TimestampParam: (
                    pair[0],
                    int(timestamp),
                    int(window.start),
                )
            )
            assert_that(seen, equal_to(expected), label=name)


def test_relative_paths(paths, monkeypatch):
    good, _ = paths
    assert label([good.name], base_dir=good.parent)[0][0].uri == good.name
    monkeypatch.chdir(good.parent)
    assert label([{"uri": good.name}])[0][0]["uri"] == good.name


def test_two_modules_in_one_pipeline(paths):
    good, _ = map(str, paths)
    with beam.Pipeline(runner=FnApiRunner()) as p:
        uris = p | beam.Create([good])
        many = uris | "Many" >> LabelImages(TINY)
        one = uris | "One" >> LabelImages(TINY, top_k=1, scores="none", embeddings=False)
        for name, labeled in (("many", many), ("one", one)):
            shown = labeled.predictions | f"Show {name}" >> beam.Map(
                lambda row: (len(row.scores), row.embedding is None, sum(row.scores) < 1)
            )
            assert_that(
                shown, equal_to([(5, False, True)] if name == "many" else [(1, True, False)]), label=name
            )


def test_the_results_can_be_pickled(paths):
    (labeled,), (failed,) = label(list(map(str, paths)))
    assert pickle.loads(pickle.dumps(labeled)) == labeled
    assert pickle.loads(pickle.dumps(failed)) == failed


def test_the_steps_of_the_job_refuse_elements_that_they_do_not_know(tmp_path):
    image = LoadedImage(ImageRef("a", "a", "a"), np.zeros((32, 32, 3), np.uint8), ImageInfo(1, 1, "png", 1))
    for other in ("a.jpg", image):
        with pytest.raises(Exception, match=type(other).__name__), beam.Pipeline(runner=FnApiRunner()) as p:
            uris = p | beam.Create([other]).with_output_types(object)
            _ = uris | LoadImages.with_options(OPTIONS)
        with (
            pytest.raises(Exception, match=f"{type(other).__name__}.*Prediction"),
            beam.Pipeline(runner=FnApiRunner()) as p,
        ):
            _ = p | beam.Create([other]).with_output_types(object) | WriteUnit(PLAIN, str(tmp_path))
