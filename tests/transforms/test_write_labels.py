"""``WriteLabels``: the documented columns and metadata from every kind of labeled element."""

import json
import typing
from datetime import datetime, timezone

import apache_beam as beam
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from apache_beam.options.pipeline_options import PipelineOptions
from apache_beam.runners.direct.direct_runner import BundleBasedDirectRunner
from apache_beam.runners.portability.fn_api_runner import FnApiRunner
from apache_beam.testing.test_stream import TestStream
from apache_beam.transforms.window import FixedWindows, TimestampedValue
from apache_beam.utils.timestamp import Timestamp

from beamlabel import LabelImages, WriteLabels
from beamlabel.transforms import storage
from support.gcs_server import Bucket
from support.jobs import TINY, label, photos, uri_list

NAMES = [f"class {number}" for number in range(11)]


class Photo(typing.NamedTuple):
    uri: str
    customer: int
    taken: typing.Optional[str]  # noqa: UP045 (Beam reads the annotations)


@pytest.fixture
def paths(tmp_path):
    made = photos(tmp_path / "photos", 6)
    made[2].write_bytes(b"no image")
    return made


def write(elements, output, *, labels=None, only_predictions=False, **arguments):
    with beam.Pipeline(runner=FnApiRunner()) as p:
        labeled = p | beam.Create(elements) | LabelImages(TINY, class_names=NAMES, **(labels or {}))
        _ = (labeled.predictions if only_predictions else labeled) | WriteLabels(output, **arguments)
    return output


def read(output):
    return pq.read_table(sorted(output.glob("part-*.parquet"))).sort_by("uri")


def test_bare_uris_are_the_columns_of_the_job(paths, tmp_path):
    output = write(list(map(str, paths)), tmp_path / "out")
    names = tmp_path / "names.txt"
    names.write_text("\n".join(NAMES) + "\n")
    job = label(tmp_path / "job", "--input", uri_list(tmp_path / "list.txt", paths), "--labels", names)
    expected = pq.read_table(sorted((tmp_path / "job").glob("part-*.parquet"))).sort_by("uri")
    found = read(output)
    assert found.schema.equals(expected.schema)
    same = [name for name in found.column_names if name not in ("ref_id", "labeled_at")]
    assert found.select(same).to_pylist() == expected.select(same).to_pylist()
    # Every entry is there except the plan, which only the job has.
    metadata = {key: value for key, value in expected.schema.metadata.items() if key != b"beamlabel.plan_id"}
    assert found.schema.metadata == metadata
    (failures,) = (output / "_failures").glob("part-*.jsonl")
    (failed,) = map(json.loads, failures.read_text().splitlines())
    (by_job,) = job.failures
    assert {**failed, "ref_id": by_job["ref_id"]} == by_job


def test_fields_of_rows_are_columns_with_their_types(paths, tmp_path):
    elements = [Photo(str(path), number, None if number else "then") for number, path in enumerate(paths)]
    found = read(write(elements, tmp_path / "out"))
    assert (
        found.schema.field("customer").type == pa.int64() and found.schema.field("taken").type == pa.string()
    )
    assert found["customer"].to_pylist() == [0, 1, 3, 4, 5]
    assert found["taken"].to_pylist() == ["then", None, None, None, None]
    some = read(write(elements, tmp_path / "some", columns={"customer": pa.int16()}))
    assert some.schema.field("customer").type == pa.int16() and "taken" not in some.column_names


def test_dicts_say_their_columns(paths, tmp_path):
    elements = [{"uri": str(path), "customer": n, "tags": ["a"] * n} for n, path in enumerate(paths)]
    columns = {"customer": pa.int32(), "tags": pa.list_(pa.string())}
    found = read(write(elements, tmp_path / "out", columns=columns))
    assert found.schema.field("customer").type == pa.int32()
    assert [len(tags) for tags in found["tags"].to_pylist()] == [0, 1, 3, 4, 5]
    with pytest.raises(Exception, match=r"customer.*columns"):
        write(elements, tmp_path / "unnamed")
    with pytest.raises(Exception, match=r"customer.*int8"):
        write([{"uri": str(paths[0]), "customer": 1000}], tmp_path / "big", columns={"customer": pa.int8()})


def test_steps_in_between_prefixes_and_bytes(paths, tmp_path):
    elements = [{"name": f"n{n}", "image": path.read_bytes()} for n, path in enumerate(paths)]
    with beam.Pipeline(runner=FnApiRunner()) as p:
        labeled = (
            p
            | beam.Create(elements)
            | LabelImages(TINY, uri="name", image="image", prefix="ours_", class_names=NAMES)
        )
        chosen = labeled.predictions | beam.Filter(lambda row: row["name"] != "n0")
        _ = chosen | WriteLabels(tmp_path / "out", columns={})
    found = read(tmp_path / "out")
    assert found["uri"].to_pylist() == ["n1", "n3", "n4", "n5"]
    assert found.column_names == read(write([str(paths[0])], tmp_path / "plain")).column_names


def test_bare_bytes_are_named_by_their_identity(paths, tmp_path):
    found = read(write([paths[0].read_bytes()], tmp_path / "out", only_predictions=True))
    assert found["uri"].to_pylist() == found["image_id"].to_pylist() == found["ref_id"].to_pylist()
    assert not (tmp_path / "out" / "_failures").exists()


@pytest.mark.parametrize("compression", ["none", "gzip"])
def test_tfrecords(paths, tmp_path, compression):
    output = tmp_path / "out"
    elements = [Photo(str(path), number, "x") for number, path in enumerate(paths)]
    write(elements, output, output_format="tfrecord", compression=compression, num_shards=2)
    tf = pytest.importorskip("tensorflow")
    files = sorted(map(str, output.glob("part-*")))
    assert len(files) == 2
    records = tf.data.TFRecordDataset(files, compression_type=compression.upper().replace("NONE", ""))
    rows = [tf.train.Example.FromString(record.numpy()).features.feature for record in records]
    assert sorted(row["customer"].int64_list.value[0] for row in rows) == [0, 1, 3, 4, 5]
    assert all(len(row["embedding"].float_list.value) == 64 for row in rows)
    facts = json.loads((output / "_METADATA.json").read_text())
    assert facts["beamlabel.num_classes"] == "11" and facts["beamlabel.schema_version"]


def test_a_stream_is_written_window_by_window(paths, tmp_path):
    stream = TestStream().advance_watermark_to(0)
    for number, path in enumerate(paths):
        stream.add_elements([TimestampedValue(str(path), 10 * number)])
    stream.advance_watermark_to_infinity()
    with beam.Pipeline(runner=BundleBasedDirectRunner(), options=PipelineOptions(["--streaming"])) as p:
        labeled = p | stream | beam.WindowInto(FixedWindows(30)) | LabelImages(TINY, class_names=NAMES)
        _ = labeled | WriteLabels(tmp_path / "out")
    files = sorted((tmp_path / "out").glob("part-*.parquet"))
    assert sorted(pq.read_metadata(file).num_rows for file in files) == [2, 3]
    assert read(tmp_path / "out")["uri"].to_pylist() == [str(path) for n, path in enumerate(paths) if n != 2]


def test_no_rows_are_still_a_table(paths, tmp_path):
    found = read(write([str(paths[2])], tmp_path / "out"))
    assert found.num_rows == 0 and "embedding" in found.column_names


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ({"output_format": "csv"}, "output_format"),
        ({"compression": "gzip"}, "compression"),
        ({"compression": "zip"}, "compression"),
        ({"columns": {"customer": "int"}}, "columns.*customer"),
        ({"columns": {1: pa.int64()}}, "columns.*1"),
        ({"num_shards": -1}, "num_shards"),
    ],
    ids=str,
)
def test_mistakes_are_reported_at_once(tmp_path, arguments, named):
    with pytest.raises(ValueError, match=named):
        WriteLabels(tmp_path / "out", **arguments)


def test_mistakes_of_the_pipeline_raise_when_it_is_built(paths, tmp_path):
    uris = list(map(str, paths))
    output = write(uris, tmp_path / "out")
    with pytest.raises(ValueError, match="already contains shards"):
        write(uris, output)
    with pytest.raises(TypeError, match="pairs"):
        write([("key", uris[0])], tmp_path / "pairs")
    with pytest.raises(ValueError, match="image_id"):
        write([Photo(uris[0], 1, "")], tmp_path / "taken", columns={"image_id": pa.string()})
    for element in (uris[0], Photo(uris[0], 1, "")):
        with pytest.raises(TypeError, match="predictions"), beam.Pipeline(runner=FnApiRunner()) as p:
            _ = (p | beam.Create([element]) | LabelImages(TINY)).failures | WriteLabels(tmp_path / "failures")
    with pytest.raises(ValueError, match="no LabelImages"), beam.Pipeline(runner=FnApiRunner()) as p:
        _ = p | beam.Create(uris) | WriteLabels(tmp_path / "none")
    with pytest.raises(ValueError, match="2 LabelImages"), beam.Pipeline(runner=FnApiRunner()) as p:
        parts = [
            (p | f"C{n}" >> beam.Create(uris) | f"L{n}" >> LabelImages(TINY, top_k=n)).predictions
            for n in (1, 2)
        ]
        _ = parts | beam.Flatten() | WriteLabels(tmp_path / "two")


def test_rows_of_another_module_are_refused(paths, tmp_path):
    first, other = LabelImages(TINY, class_names=NAMES), LabelImages(TINY, class_names=NAMES, crop=0.5)
    with pytest.raises(Exception, match="preprocessing_id"), beam.Pipeline(runner=FnApiRunner()) as p:
        labeled = p | beam.Create([str(paths[0])]) | other
        _ = labeled.predictions | WriteLabels(tmp_path / "out", labels=first)


def test_a_bucket(gcs: Bucket, paths, monkeypatch):
    pytest.importorskip("apache_beam.io.gcp.gcsio", reason="needs Beam's file system for gs://")
    # This machine has no credentials, and Beam searches for them for half a minute.
    monkeypatch.setattr("apache_beam.internal.gcp.auth.get_service_credentials", lambda options: None)
    with beam.Pipeline(runner=FnApiRunner()) as p:
        _ = p | beam.Create([*map(str, paths)]) | LabelImages(TINY) | WriteLabels(gcs.uri("out"))
    names = [file.path for file in storage.match(gcs.uri("out/**"))]
    shards = [name for name in names if name.endswith(".parquet")]
    rows = pa.concat_tables([pq.read_table(pa.BufferReader(storage.read_bytes(name))) for name in shards])
    assert sorted(rows["uri"].to_pylist()) == [str(path) for n, path in enumerate(paths) if n != 2]
    assert [name for name in names if "_failures/part-" in name]


@pytest.mark.parametrize("labels", [{"uri": "path"}, {"prefix": "mobilenet_"}], ids=str)
def test_bare_uris_beside_arguments_for_fields(paths, tmp_path, labels):
    output = write(list(map(str, paths)), tmp_path / "out", labels=labels)
    assert read(output)["uri"].to_pylist() == [str(path) for n, path in enumerate(paths) if n != 2]


def test_the_field_of_the_uri_can_be_a_column_too(paths, tmp_path):
    columns = {"path": pa.string()}
    found = read(write([{"path": str(paths[0])}], tmp_path / "out", labels={"uri": "path"}, columns=columns))
    assert found["path"].to_pylist() == found["uri"].to_pylist() == [str(paths[0])]


@pytest.mark.parametrize("labels", [{"class_names": "none"}, {"prefix": "mobilenet_"}], ids=str)
def test_added_fields_are_no_columns_of_ones_own(paths, tmp_path, labels):
    name = labels.get("prefix", "") + "label"
    with pytest.raises(ValueError, match=f"columns.*'{name}'"), beam.Pipeline(runner=FnApiRunner()) as p:
        labeled = p | beam.Create([{"uri": str(paths[0])}]) | LabelImages(TINY, **labels)
        _ = labeled | WriteLabels(tmp_path / "out", columns={name: pa.string()})


class Part(typing.NamedTuple):
    width_mm: int
    note: typing.Optional[str]  # noqa: UP045 (Beam reads the annotations)


class Catalogued(typing.NamedTuple):
    uri: str
    part: Part
    parts: typing.Sequence[Part]
    counts: typing.Mapping[str, int]
    taken: Timestamp


def test_nested_rows_and_timestamps(paths, tmp_path):
    row = Catalogued(str(paths[0]), Part(1, "x"), [Part(2, None)], {"a": 3}, Timestamp(1.5))
    (found,) = read(write([row], tmp_path / "out")).to_pylist()
    assert found["part"] == {"width_mm": 1, "note": "x"}
    assert found["parts"] == [{"width_mm": 2, "note": None}]
    assert dict(found["counts"]) == {"a": 3}
    assert found["taken"] == datetime(1970, 1, 1, 0, 0, 1, 500_000, timezone.utc)


def test_failures_of_any_fields_are_json(paths, tmp_path):
    def no_constant(text):
        raise AssertionError(text)

    bad, photo = str(paths[2]), b"photo" * 9
    elements = [
        {"uri": float("nan"), "number": float("inf"), ("a", 1): "tuple"},
        {"uri": bad, "nested": {"photo": photo, "text": "x"}, "rows": [Part(1, None)]},
        {"uri": bad, "label": "taken", "photo": photo},
    ]
    write(elements, tmp_path / "dicts", columns={})
    # Pairs have no table, but their failures do.
    with beam.Pipeline(runner=FnApiRunner()) as p:
        pairs = [((1, b"k"), ("inner", bad)), ("outer", {"uri": bad, "key": "own"})]
        labeled = p | beam.Create(pairs) | LabelImages(TINY)
        _ = labeled._replace(predictions=labeled.predictions | beam.Values()) | WriteLabels(
            tmp_path / "pairs"
        )
    lines = [line for file in tmp_path.glob("*/_failures/part-*") for line in file.read_text().splitlines()]
    assert not any("photo" * 2 in line for line in lines)
    found = [json.loads(line, parse_constant=no_constant) for line in lines]
    by = {str(row.get("key", row.get("element") and "element")): row for row in found}
    (nested_pair,) = [row for row in found if row.get("key") == [[1, "b'k'"], "inner"]]
    assert nested_pair["reason"] == "not_an_image"
    assert by["own"]["pair_key"] == "outer"
    assert by["element"]["element"] == {"uri": bad, "label": "taken"}
    (nan,) = [row for row in found if "number" in row]
    assert nan["uri"] is nan["number"] is None and nan["('a', 1)"] == "tuple"
    (nested,) = [row for row in found if "nested" in row]
    assert nested["nested"] == {"text": "x"} and nested["rows"] == [{"width_mm": 1, "note": None}]


def test_patterns_in_the_output(tmp_path):
    with pytest.raises(ValueError, match="output"):
        WriteLabels(tmp_path / "labels [1]")


def test_a_name_of_ours_is_told_in_words_of_this_transform(paths, tmp_path):
    with pytest.raises(ValueError, match="'ref_id'") as caught:
        write([{"uri": str(paths[0])}], tmp_path / "out", columns={"ref_id": pa.string()})
    assert "--" not in str(caught.value)
