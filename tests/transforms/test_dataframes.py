"""The schemas of results in aggregations, DataFrames, Beam's sinks and other languages."""

import json
import typing

import apache_beam as beam
import pyarrow.parquet as pq
import pytest
from apache_beam.dataframe.convert import to_dataframe, to_pcollection
from apache_beam.portability.api import schema_pb2
from apache_beam.runners.portability.fn_api_runner import FnApiRunner
from apache_beam.testing.util import assert_that, equal_to
from apache_beam.typehints.schemas import schema_from_element_type

from beamlabel import LabelImages
from support.collect import Collect
from support.jobs import TINY, TINY_FEATURES, photos

NAMES = [f"class {number}" for number in range(11)]


class Photo(typing.NamedTuple):
    uri: str
    customer: int
    camera: str | None
    place: typing.Optional[str]  # noqa: UP045 (both ways to write it)


def bare(path, number):
    return str(path)


def row(path, number):
    return beam.Row(uri=str(path), customer=number)


def named_tuple(path, number):
    return Photo(str(path), number, None if number % 2 else "Canon", None)


KINDS = pytest.mark.parametrize("make", [bare, row, named_tuple], ids=lambda make: make.__name__)


@pytest.fixture
def paths(tmp_path):
    """Six files, the last two of which are not images."""
    made = photos(tmp_path / "photos", 6)
    for path in made[4:]:
        path.write_bytes(b"no image")
    return made


@pytest.fixture
def labels(paths):
    """The label of each valid image."""
    found = Collect()
    with beam.Pipeline(runner=FnApiRunner()) as p:
        _ = (
            p | beam.Create([str(path) for path in paths]) | LabelImages(TINY, class_names=NAMES)
        ).predictions | found
    return {labeled.uri: labeled.label for labeled in found.values}


def counted(labels):
    return [(name, list(labels.values()).count(name)) for name in sorted(set(labels.values()))]


def labeled(p, paths, make, module=TINY, **arguments):
    elements = [make(path, number) for number, path in enumerate(paths)]
    return p | beam.Create(elements) | LabelImages(module, **({"class_names": NAMES} | arguments))


@KINDS
def test_group_by_counts(paths, labels, make):
    with beam.Pipeline(runner=FnApiRunner()) as p:
        predictions, failures = labeled(p, paths, make)
        counts = predictions | "Count" >> beam.GroupBy("label").aggregate_field("uri", _count(), "images")
        reasons = failures | "Reason" >> beam.GroupBy("reason").aggregate_field("uri", _count(), "images")
        assert_that(
            counts | "Pairs" >> beam.Map(lambda row: (row.label, row.images)), equal_to(counted(labels))
        )
        assert_that(
            reasons | "Reasons" >> beam.Map(lambda row: (row.reason, row.images)),
            equal_to([("not_an_image", 2)]),
            label="Failures",
        )


@KINDS
def test_dataframes(paths, labels, make):
    with beam.Pipeline(runner=FnApiRunner()) as p:
        predictions, failures = labeled(p, paths, make)
        frame = to_dataframe(predictions, label="Predictions")
        assert frame.dtypes["score"] == "float32" and frame.dtypes["width"] == "int32"
        counts = frame.groupby("label")[["uri"]].count()
        broken = to_dataframe(failures, label="Failures").groupby(["stage", "reason"])[["uri"]].count()
        wide = frame[frame.width > frame.height][["uri", "label"]]
        for name, frame, expected in (
            ("counts", to_pcollection(counts, include_indexes=True), counted(labels)),
            ("broken", to_pcollection(broken, include_indexes=True), [("decode", "not_an_image", 2)]),
            ("wide", to_pcollection(wide), list(labels.items())),
        ):
            assert_that(frame | f"Pairs {name}" >> beam.Map(tuple), equal_to(expected), label=name)


@KINDS
def test_sinks_of_beam(tmp_path, paths, labels, make):
    with beam.Pipeline(runner=FnApiRunner()) as p:
        predictions, failures = labeled(p, paths, make)
        _ = predictions | "Rows" >> beam.io.WriteToJson(str(tmp_path / "labels"))
        _ = failures | "Failures" >> beam.io.WriteToJson(str(tmp_path / "failures"))
        _ = predictions | "Parquet" >> beam.io.WriteToParquet(str(tmp_path / "parquet"))
    rows, failed = (json_lines(tmp_path, name) for name in ("labels", "failures"))
    assert {found["uri"]: found["label"] for found in rows} == labels
    assert all(len(found["scores"]) == 5 and len(found["embedding"]) == 64 for found in rows)
    assert [found["reason"] for found in failed] == ["not_an_image"] * 2
    (file,) = tmp_path.glob("parquet*")
    table = pq.read_table(file)
    assert dict(zip(table["uri"].to_pylist(), table["label"].to_pylist(), strict=True)) == labels
    assert [str(table.schema.field(name).type) for name in ("score", "width", "source_bytes")] == [
        "float", "int32", "int64",
    ]  # fmt: skip
    if make is named_tuple:
        assert {found["customer"]: found["camera"] for found in rows} == {
            0: "Canon", 1: None, 2: "Canon", 3: None,
        }  # fmt: skip


@KINDS
@pytest.mark.parametrize(
    ("module", "arguments"),
    [
        (TINY, {}),
        (TINY, {"class_names": "none", "embeddings": False}),
        (TINY_FEATURES, {"class_names": None}),
    ],
    ids=["whole", "scores", "features"],
)
def test_other_languages_know_the_schemas(paths, make, module, arguments):
    """SQL and WriteToBigQuery by the Storage Write API are Java and cannot read pickled Python objects."""
    found = labeled(beam.Pipeline(runner=FnApiRunner()), paths, make, module, **arguments)
    for pcollection in found:
        schema = schema_from_element_type(pcollection.element_type)
        assert not [field.name for field in schema.fields if not _is_portable(field.type)]
        nullable = {field.name for field in schema.fields if field.type.nullable}
        # Fields that every labeled image, or every failure, has are never null.
        assert not nullable & {"width", "height", "format", "content_hash", "module_handle"} or (
            pcollection is found.failures
        )
        assert not nullable & {"stage", "reason", "detail"}
        assert nullable >= {"source_version"}
    embedding = schema_from_element_type(found.predictions.element_type)
    arrays = {
        field.name: field.type.array_type.element_type.atomic_type
        for field in embedding.fields
        if field.type.HasField("array_type")
    }
    expected = {
        "labels": schema_pb2.STRING,
        "class_ids": schema_pb2.INT32,
        "scores": schema_pb2.FLOAT,
        "embedding": schema_pb2.FLOAT,
    }
    assert arrays.items() <= expected.items() and arrays


def _is_portable(kind) -> bool:
    if kind.HasField("array_type"):
        return _is_portable(kind.array_type.element_type)
    return kind.HasField("atomic_type")


def _count():
    return beam.combiners.CountCombineFn()


def json_lines(directory, name):
    return [
        json.loads(line) for file in directory.glob(f"{name}-*") for line in file.read_text().splitlines()
    ]
