"""Kept columns: their names, their types over many files, and Hugging Face's class names."""

from __future__ import annotations

import json
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from beamlabel.pipeline.evaluate.evaluate import evaluate
from beamlabel.pipeline.output.verify import verify
from support.jobs import TINY_FEATURES, label, photos, read_examples, uri_list
from support.kept import checked, refusal, values, write


@pytest.fixture
def images(tmp_path: Path) -> list[str]:
    return [str(path) for path in photos(tmp_path / "photos", 3)]


def files(tmp_path: Path, images: list[str], *columns: pa.Array | None) -> str:
    directory = tmp_path / "in"
    directory.mkdir()
    for number, column in enumerate(columns):
        pq.write_table(pa.table({"uri": images[: len(column)], "x": column}), directory / f"{number}.parquet")
    return f"{directory}/"


def named(value: Any) -> str:
    """The name of a case: the types of its columns, since arrays print addresses, which differ between processes."""
    return " and ".join(str(column.type) for column in value) if isinstance(value, list) else str(value)


@pytest.mark.parametrize(
    ("columns", "kind"),
    [
        ([pa.nulls(1), pa.array([7], pa.int8())], pa.int8()),
        ([pa.array([7], pa.int8()), pa.nulls(1), pa.array([2**40])], pa.int64()),
        ([pa.array([7]), pa.array([0.5])], pa.float64()),
        ([pa.array(["a"]), pa.array(["b"], pa.large_string()), pa.array(["c" * 20], pa.string_view())],
         pa.large_string()),
        ([pa.array(["a"]).dictionary_encode(), pa.array(["b"])], pa.string()),
        ([pa.array([1], pa.timestamp("ms", "UTC")), pa.array([1000], pa.timestamp("ns", "UTC"))],
         pa.timestamp("us", "UTC")),
        ([pa.array([[1]], pa.list_(pa.int8())), pa.array([[None, 300]], pa.list_(pa.int16()))], pa.list_(pa.int16())),
        ([pa.array([Decimal("1.5")], pa.decimal128(5, 1)), pa.array([Decimal("1.234")], pa.decimal128(5, 3))],
         pa.decimal128(7, 3)),
        ([pa.array([{"a": 1}]), pa.array([{"b": "x"}])], pa.struct({"a": pa.int64(), "b": pa.string()})),
        ([pa.nulls(1), pa.nulls(2)], pa.string()),
        ([pa.array([[]], pa.list_(pa.null()))], pa.list_(pa.string())),
    ],
    ids=named,
)  # fmt: skip
def test_one_type_for_all_files(tmp_path, images, columns, kind):
    source = files(tmp_path, images, *columns)
    job = label(tmp_path / "out", "--input", source, "--keep_columns", "x")
    assert job.code == 0
    assert job.table.schema.field("x").type == kind
    expected = [value for column in columns for value in values(pa.chunked_array([column]))]
    if pa.types.is_struct(kind):
        expected = [{"a": None, "b": None} | value for value in expected]
    assert values(job.table["x"]) == expected
    assert label(job.output, "--input", source, "--keep_columns", "x", "--if_exists", "resume").code == 0


@pytest.mark.parametrize(
    "columns",
    [
        [pa.array([1]), pa.array(["a"])],
        [pa.array([2**53 + 1]), pa.array([0.5])],
        [pa.array([2**64 - 1], pa.uint64()), pa.array([-1])],
        [pa.array([1], pa.timestamp("us")), pa.array([1], pa.timestamp("us", "UTC"))],
        [pa.array([2**62], pa.timestamp("ms")), pa.array([1], pa.timestamp("us"))],
        [pa.array([{"a": 1}]), pa.array([{"a": "x"}])],
        [pa.array([True]), pa.array([1])],
    ],
    ids=named,
)
def test_types_that_do_not_go_together_are_refused(tmp_path, images, columns):
    source = files(tmp_path, images, *columns)
    message = refusal("--input", source, "--keep_columns", "x")
    assert "'x'" in message and f"{source}0.parquet" in message
    assert str(columns[0].type) in message


def hugging_face(
    path: Path, images: list[str], features: dict[str, Any], columns: dict[str, pa.Array]
) -> Path:
    table = pa.table({"uri": images, **columns})
    metadata = {"huggingface": json.dumps({"info": {"features": features}})}
    pq.write_table(table.replace_schema_metadata(metadata), path)
    return path


NUMBER = {"dtype": "int64", "_type": "Value"}
CLASSES = {"names": ["cat", "dog"], "_type": "ClassLabel"}


def test_class_labels_become_their_names(tmp_path, images):
    features = {
        "label": CLASSES, "many": {"feature": CLASSES, "_type": "Sequence"}, "old": [CLASSES],
        "objects": {"feature": {"category": CLASSES, "area": NUMBER}, "_type": "Sequence"},
        "nested": {"category": CLASSES}, "plain": NUMBER,
    }  # fmt: skip
    columns = {
        "label": pa.array([1, -1, 0]), "many": pa.array([[1, 0], None, []], pa.list_(pa.int64())),
        "old": pa.array([[-1], None, [0]], pa.list_(pa.int64())),
        "objects": pa.array([{"category": [1], "area": [7]}, None, {"category": None, "area": []}]),
        "nested": pa.array([{"category": 1}, None, {"category": -1}]), "plain": pa.array([1, None, 0]),
    }  # fmt: skip
    source = hugging_face(tmp_path / "in.parquet", images, features, columns)
    keep = ("label=truth", "label:id=truth_id", "many", "old", "objects", "nested", "plain")
    job = label(tmp_path / "out", "--input", source, "--keep_columns", *keep)
    assert job.code == 0
    assert job.table["truth"].to_pylist() == ["dog", None, "cat"]
    assert job.table["truth_id"].to_pylist() == [1, -1, 0]
    assert job.table["many"].to_pylist() == [["dog", "cat"], None, []]
    assert job.table["old"].to_pylist() == [[None], None, ["cat"]]
    assert job.table["objects"].to_pylist() == [
        {"category": ["dog"], "area": [7]},
        None,
        {"category": None, "area": []},
    ]
    assert job.table["nested"].to_pylist() == [{"category": "dog"}, None, {"category": None}]
    assert job.table["plain"].to_pylist() == [1, None, 0]


def test_classes_by_name_and_by_number_are_evaluated(tmp_path, images):
    names = [f"class {i}" for i in range(11)]
    listed = uri_list(tmp_path / "names.txt", names)
    plain = write(tmp_path / "plain.parquet", images, {})
    best = label(tmp_path / "best", "--input", plain, "--labels", listed).table["class_ids"].to_pylist()
    right = [ids[0] for ids in best[:2]]
    truth = pa.array([*right, best[2][1]])
    source = hugging_face(
        tmp_path / "in.parquet", images, {"label": {"names": names, "_type": "ClassLabel"}}, {"label": truth}
    )
    keep = ("--keep_columns", "label=truth", "label:id=truth_id")
    job = label(tmp_path / "out", "--input", source, "--labels", listed, *keep)
    for column in ("truth", "truth_id"):
        tally = evaluate(str(job.output), column).counts
        assert (tally.evaluated, tally.correct) == (3, 2)
    assert verify(str(job.output)).problems == ()


def test_each_file_has_its_own_names(tmp_path, images):
    directory = tmp_path / "in"
    directory.mkdir()
    turned = {"names": ["dog", "cat"], "_type": "ClassLabel"}
    for number, feature in enumerate((CLASSES, turned)):
        hugging_face(directory / f"{number}.parquet", images[:1], {"y": feature}, {"y": pa.array([0])})
    job = label(tmp_path / "out", "--input", f"{directory}/", "--keep_columns", "y")
    assert job.table["y"].to_pylist() == ["cat", "dog"]


def test_a_class_without_a_name_is_refused(tmp_path, images):
    source = hugging_face(tmp_path / "in.parquet", images, {"y": CLASSES}, {"y": pa.array([0, 1, 2])})
    message = refusal("--input", source, "--keep_columns", "y")
    assert "'y'" in message and str(source) in message and "row 2" in message
    assert checked("--input", source, "--keep_columns", "y:id").kept == (("y", pa.int64()),)


@pytest.mark.parametrize(
    "metadata", [b"", b"no json", b"[]", b'{"info": null}', b'{"info": {"features": [1]}}', b"\xff"]
)
def test_other_metadata_is_none_of_ours(tmp_path, images, metadata):
    table = pa.table({"uri": images, "y": [0, 1, 2]}).replace_schema_metadata({"huggingface": metadata})
    pq.write_table(table, tmp_path / "in.parquet")
    assert checked("--input", tmp_path / "in.parquet", "--keep_columns", "y").kept == (("y", pa.int64()),)
    assert "'y'" in refusal("--input", tmp_path / "in.parquet", "--keep_columns", "y:id")


def test_names_of_the_output(tmp_path, images, capsys):
    source = write(tmp_path / "in.parquet", images, {"label": ["a", "b", "c"], "score": [1, 2, 3]})
    names = uri_list(tmp_path / "names.txt", [f"class {i}" for i in range(11)])
    arguments = ("--input", source, "--keep_columns")
    assert label(tmp_path / "refused", *arguments, "label", "--labels", names).code == 2
    assert "SOURCE=NAME" in capsys.readouterr().err
    assert label(tmp_path / "refused", *arguments, "label=Score", "--labels", "none").code == 2
    assert label(tmp_path / "refused", *arguments, "label=x", "score=X").code == 2
    assert label(tmp_path / "refused", *arguments, "label=").code == 2
    renamed = label(tmp_path / "renamed", *arguments, "label=truth", "score=s", "--labels", names)
    assert (renamed.code, renamed.table["truth"].to_pylist()) == (0, ["a", "b", "c"])
    free = label(tmp_path / "free", *arguments, "label", "--labels", "none")
    assert (free.code, free.table["label"].to_pylist()) == (0, ["a", "b", "c"])
    assert verify(str(free.output)).problems == ()
    embeddings = label(tmp_path / "embeddings", *arguments, "label", "score", module=TINY_FEATURES)
    assert (embeddings.code, embeddings.table["score"].to_pylist()) == (0, [1, 2, 3])


@pytest.mark.parametrize(
    "name", ["a.b", "ünï 漢 字", "x" * 5000, "a=b", "new\nline", "nul\0", "a:id", "{date}", "*"]
)
def test_odd_names_of_columns(tmp_path, images, name):
    source = write(
        tmp_path / "in.parquet", images, {name: [1, 2, 3], "a": [{"b": 1, "c": 2}] * 3, "b": [7, 8, 9]}
    )
    for directory, kept in ((tmp_path / "same", name), (tmp_path / "renamed", f"{name}=other")):
        job = label(directory, "--input", source, "--keep_columns", kept, "a")
        assert job.code == 0
        assert job.table["other" if kept.endswith("=other") else name].to_pylist() == [1, 2, 3]
        assert job.table["a"].to_pylist() == [{"b": 1, "c": 2}] * 3


@pytest.mark.parametrize("kept", ["a,b", "a=x,b=y", "a=b,b=a", "a, b", "a:id=x,b"])
def test_a_list_with_commas_is_refused(tmp_path, images, kept):
    """Its rest would become part of the first column's new name."""
    source = write(tmp_path / "in.parquet", images, {"a": [1, 2, 3], "b": [4, 5, 6]})
    assert "blanks" in refusal("--input", source, "--keep_columns", kept)


def test_commas_within_names(tmp_path, images):
    source = write(tmp_path / "in.parquet", images, {"a": [1, 2, 3], "a,a": [4, 5, 6]})
    job = label(tmp_path / "out", "--input", source, "--keep_columns", "a,a", "a=x, of y")
    assert job.table["a,a"].to_pylist() == [4, 5, 6]
    assert job.table["x, of y"].to_pylist() == [1, 2, 3]


def test_a_column_without_a_name(tmp_path, images):
    source = write(tmp_path / "in.parquet", images, {"": [1, 2, 3]})
    assert "NAME" in refusal("--input", source, "--keep_columns", "")
    job = label(tmp_path / "out", "--input", source, "--keep_columns", "=number")
    assert job.table["number"].to_pylist() == [1, 2, 3]


@pytest.mark.parametrize("arguments", [(), ("--uri_column", "uri"), ("--keep_columns", "uri=u")], ids=str)
def test_two_columns_of_one_name_are_a_usage_error(tmp_path, images, capsys, arguments):
    table = pa.Table.from_arrays([pa.array(images), pa.array(images)], names=["uri", "uri"])
    pq.write_table(table, tmp_path / "in.parquet")
    assert label(tmp_path / "out", "--input", tmp_path / "in.parquet", *arguments).code == 2
    message = capsys.readouterr().err
    assert "'uri'" in message and str(tmp_path / "in.parquet") in message


@pytest.mark.parametrize("format", ["parquet", "tfrecord"])
def test_renamed_columns_are_skipped_retried_and_resumed(tmp_path, images, format):
    gone = str(tmp_path / "gone.png")
    source = write(tmp_path / "in.parquet", [*images, gone], {"label": ["a", "b", "c", "d"]})
    names = uri_list(tmp_path / "names.txt", [f"class {i}" for i in range(11)])
    options = ("--labels", names, "--output_format", format, "--max_error_rate", 1)
    arguments = ("--input", source, "--keep_columns", "label=truth", *options)
    first = label(tmp_path / "first", *arguments)
    assert first.manifest["rows"]["predicted"] == 3
    again = label(tmp_path / "again", *arguments, "--skip_labeled", first.output)
    assert (again.manifest["rows"]["skipped"], again.manifest["rows"]["failed"]) == (3, 1)
    other = label(tmp_path / "other", *arguments[:3], "label=name", *options, "--skip_labeled", first.output)
    assert other.manifest["rows"]["skipped"] == 0, "the labeled rows have no such column"
    resumed = label(first.output, *arguments, "--if_exists", "resume")
    assert resumed.manifest["rows"]["predicted"] == 3
    photos(tmp_path / "late", 1)[0].rename(gone)
    retried = label(tmp_path / "retried", "--retry_failures", first.output, *options)
    assert retried.manifest["rows"]["predicted"] == 1
    if format == "parquet":
        assert [row["truth"] for row in retried.rows] == ["d"]
    else:
        assert [example["truth"] for example in read_examples(retried.output)] == [[b"d"]]
