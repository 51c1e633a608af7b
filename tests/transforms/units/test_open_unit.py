import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from beamlabel.transforms.inputs.parquet_source import ParquetColumns
from beamlabel.transforms.inputs.selection import Selection
from beamlabel.transforms.inputs.sources.source import SourceOptions
from beamlabel.transforms.records import Failure, ImageRef, InputFile, Reason, Stage, UnitEnd
from beamlabel.transforms.storage.identity import image_id
from beamlabel.transforms.units.open_unit import open_unit
from beamlabel.transforms.units.plan_units import plan_files


def opened(file, **changes):
    options = SourceOptions(**{"base_dir": "/base", "columns": ParquetColumns(uri="uri"), **changes})
    return [
        list(open_unit(unit, options, Selection(options.selection)))
        for unit in plan_files([(0, file)], options)
    ]


def test_a_text_unit_gives_its_references_and_then_its_end(tmp_path):
    path = tmp_path / "list.txt"
    path.write_text("a.jpg\n# no\ngs://bucket/b.jpg\n")
    ((first, second, end),) = opened(InputFile(str(path), "text"))
    assert first == ImageRef(
        "a.jpg", f"{path}#0", "/base/a.jpg", 0, end.unit.unit_id, image_id=image_id("/base/a.jpg")
    )
    assert second == ImageRef(
        "gs://bucket/b.jpg",
        f"{path}#2",
        "gs://bucket/b.jpg",
        2,
        end.unit.unit_id,
        image_id=image_id("gs://bucket/b.jpg"),
    )
    assert isinstance(end, UnitEnd)
    assert (end.sent, end.skipped, end.unit.stop, end.unit.packed_refs) == (2, 0, 3, None)


def test_a_null_uri_is_a_failure_of_its_row(tmp_path):
    path = tmp_path / "p.parquet"
    pq.write_table(pa.table({"uri": ["a.jpg", None, ""]}), path)
    ((ref, null, empty, end),) = opened(InputFile(str(path), "parquet"))
    assert isinstance(ref, ImageRef)
    for failure, row in ((null, 1), (empty, 2)):
        assert isinstance(failure, Failure)
        assert (failure.uri, failure.ref_id, failure.row) == (None, f"{path}#{row}", row)
        assert (failure.stage, failure.reason) == (Stage.OPEN, Reason.NULL_URI)
    assert end.sent == 3


def test_inline_images_keep_their_path_or_are_named_by_file_and_row(tmp_path):
    path = tmp_path / "p.parquet"
    struct = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    images = [
        {"bytes": b"1", "path": "x/1.jpg"},
        {"bytes": b"2", "path": None},
        {"bytes": None, "path": "3.jpg"},
    ]
    pq.write_table(pa.table({"image": pa.array(images, struct)}), path)
    ((first, second, third, _),) = opened(
        InputFile(str(path), "parquet"), columns=ParquetColumns(image="image")
    )
    assert (first.uri, first.data) == ("x/1.jpg", b"1")
    assert (second.uri, second.ref_id, second.data) == (f"{path}#1", f"{path}#1", b"2")
    assert (third.location, third.data) == ("/base/3.jpg", None)


def test_a_sampled_parquet_unit_sends_only_its_sample(tmp_path):
    names = [f"{i}.jpg" for i in range(300)]
    path, text = tmp_path / "p.parquet", tmp_path / "t.txt"
    pq.write_table(pa.table({"uri": names}), path, row_group_size=50)
    text.write_text("\n".join(names))
    parquet_units = opened(InputFile(str(path), "parquet"), sample=0.3, shard_rows=20)
    text_units = opened(InputFile(str(text), "text"), sample=0.3, shard_rows=20)
    found = [ref.uri for unit in parquet_units for ref in unit[:-1]]
    assert found == [ref.uri for unit in text_units for ref in unit[:-1]]
    assert 0 < len(found) < 300
    assert [unit[-1].sent for unit in parquet_units] == [len(unit) - 1 for unit in parquet_units]


def test_a_file_that_changed_since_it_was_planned_breaks_the_run(tmp_path):
    path = tmp_path / "p.parquet"
    pq.write_table(pa.table({"uri": ["a", "b", "c"]}), path)
    options = SourceOptions(base_dir="/", columns=ParquetColumns(uri="uri"))
    (unit,) = plan_files([(0, InputFile(str(path), "parquet"))], options)
    pq.write_table(pa.table({"uri": ["a", "b", "c", "d"]}), path)
    with pytest.raises(ValueError, match="has 4 rows, but had 3 when the run was planned"):
        list(open_unit(unit, options, Selection(options.selection)))


def test_a_listed_image_is_identified_by_itself(tmp_path):
    (tmp_path / "a#b c.jpg").write_bytes(b"x")
    ((ref, _),) = opened(InputFile(str(tmp_path) + "/", "images"))
    assert ref.location == str(tmp_path / "a#b c.jpg")
    assert ref.ref_id == f"{tmp_path}/a#b c.jpg#0"
