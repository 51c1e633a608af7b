import gzip

import apache_beam as beam
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from apache_beam.runners.portability.fn_api_runner import FnApiRunner
from apache_beam.testing.util import assert_that, equal_to

from beamlabel.transforms.inputs.packed_refs import PackedRef, pack, unpack
from beamlabel.transforms.inputs.parquet_source import ParquetColumns
from beamlabel.transforms.inputs.sources.source import MAX_UNIT_ROWS, SourceOptions
from beamlabel.transforms.records import InputFile
from beamlabel.transforms.storage.uris import sample_hash
from beamlabel.transforms.units.plan_units import PlanUnits, plan_files


def text_file(path, lines, ending="\n"):
    path.write_bytes("".join(line + ending for line in lines).encode())
    return InputFile(str(path), "text")


def parquet_file(path, uris, row_group_size=7):
    pq.write_table(pa.table({"uri": pa.array(uris, pa.string())}), path, row_group_size=row_group_size)
    return InputFile(str(path), "parquet")


def options(**changes):
    return SourceOptions(**{"base_dir": "/", "columns": ParquetColumns(uri="uri"), **changes})


def plan(*files, **changes):
    return list(plan_files(enumerate(files), options(**changes)))


def tiles(units):
    return [(unit.start, unit.stop, unit.last) for unit in units]


def uris(units):
    return [uri for unit in units for _, uri, *_ in unpack(unit.packed_refs)]


def test_packing_is_lossless_and_small():
    refs = [PackedRef(row, f"gs://bucket/photos/{row:07d}.jpg") for row in range(10_000)]
    packed, _ = pack(refs, with_listing_stat=False)
    assert list(unpack(packed)) == refs
    assert len(packed) < 100_000


def test_units_tile_a_text_file_and_blank_lines_and_comments_are_in_no_reference(tmp_path):
    file = text_file(tmp_path / "list.txt", ["# photos", "a.jpg", "", "b.jpg", "   ", "c.jpg", "# end"])
    units = plan(file, shard_rows=2)
    assert tiles(units) == [(0, 5, False), (5, 7, True)]
    assert [list(unpack(unit.packed_refs)) for unit in units] == [
        [PackedRef(1, "a.jpg"), PackedRef(3, "b.jpg")],
        [PackedRef(5, "c.jpg")],
    ]


def test_crlf_byte_order_mark_and_gzip_are_read(tmp_path):
    content = "\ufeffa b.jpg\r\nphotos/ü#1.jpg\r\nlast.jpg".encode()
    (tmp_path / "plain.txt").write_bytes(content)
    (tmp_path / "list.txt.gz").write_bytes(gzip.compress(content))
    for name in ("plain.txt", "list.txt.gz"):
        units = plan(InputFile(str(tmp_path / name), "text"))
        assert uris(units) == ["a b.jpg", "photos/ü#1.jpg", "last.jpg"]


def test_a_uri_listed_twice_is_two_references(tmp_path):
    assert uris(plan(text_file(tmp_path / "l.txt", ["a.jpg", "a.jpg"]))) == ["a.jpg", "a.jpg"]


@pytest.mark.parametrize("content", ["", "\n\n", "# nothing\n"])
def test_an_empty_text_file_is_one_unit_without_references(tmp_path, content):
    (tmp_path / "empty.txt").write_text(content)
    (unit,) = plan(InputFile(str(tmp_path / "empty.txt"), "text"))
    assert (unit.start, unit.stop, unit.last) == (0, content.count("\n"), True)
    assert list(unpack(unit.packed_refs)) == []


def test_an_empty_parquet_file_is_one_unit(tmp_path):
    (unit,) = plan(parquet_file(tmp_path / "e.parquet", []))
    assert (unit.start, unit.stop, unit.last, unit.file_rows) == (0, 0, True, 0)


def test_units_tile_a_parquet_file_and_carry_no_references(tmp_path):
    units = plan(parquet_file(tmp_path / "p.parquet", [f"{i}.jpg" for i in range(25)]), shard_rows=10)
    assert tiles(units) == [(0, 10, False), (10, 20, False), (20, 25, True)]
    assert {unit.file_rows for unit in units} == {25}
    assert all(unit.packed_refs is None for unit in units)


def test_units_of_inline_images_do_not_cut_row_groups(tmp_path):
    """Otherwise each unit would read its row group from the start."""
    path = tmp_path / "p.parquet"
    pq.write_table(pa.table({"image": pa.array([b"x"] * 1000, pa.binary())}), path, row_group_size=300)
    file = InputFile(str(path), "parquet")
    images = ParquetColumns(image="image")
    assert tiles(plan(file, columns=images)) == [
        (0, 300, False),
        (300, 600, False),
        (600, 900, False),
        (900, 1000, True),
    ]
    assert tiles(plan(file, columns=images, shard_rows=500)) == [(0, 500, False), (500, 1000, True)]


def test_default_units_grow_from_small_to_the_full_size():
    sizes, before = [], 0
    while not sizes or sizes[-1] < MAX_UNIT_ROWS:
        sizes.append(options().unit_rows(before))
        before += sizes[-1]
    assert sizes[0] == 64
    assert sizes == sorted(sizes)
    assert options().unit_rows(10**9) == MAX_UNIT_ROWS == 10_000


def test_a_thousand_references_make_work_for_many_workers(tmp_path):
    units = plan(text_file(tmp_path / "l.txt", [f"{i}.jpg" for i in range(1000)]))
    assert len(units) == 16
    assert len(uris(units)) == 1000


def test_the_limit_counts_across_files_of_all_formats(tmp_path):
    files = [
        text_file(tmp_path / "a.txt", ["1", "2", "3"]),
        parquet_file(tmp_path / "b.parquet", ["4", "5", "6", "7"]),
        text_file(tmp_path / "c.txt", ["8"]),
    ]
    (unit,) = plan(*files, limit=5)
    assert [(r.input_path[-1], r.start, r.stop, r.last) for r in unit.ranges] == [
        ("t", 0, 3, True),
        ("t", 0, 2, True),
        ("t", 0, 0, True),
    ]
    assert uris([unit.parts[0]]) == ["1", "2", "3"]
    assert list(unpack(unit.parts[2].packed_refs)) == []


def test_a_limit_that_falls_on_a_full_unit_leaves_no_empty_one(tmp_path):
    units = plan(text_file(tmp_path / "a.txt", [str(i) for i in range(9)]), limit=4, shard_rows=2)
    assert tiles(units) == [(0, 2, False), (2, 4, True)]


def test_a_sample_is_the_same_in_text_and_parquet_and_close_to_its_share(tmp_path):
    names = [f"photos/{i}.jpg" for i in range(2000)]
    expected = [name for name in names if sample_hash(name) < 0.25]
    assert 400 < len(expected) < 600
    assert uris(plan(text_file(tmp_path / "a.txt", names), sample=0.25)) == expected
    ranges = plan(parquet_file(tmp_path / "b.parquet", names, 500), sample=0.25, shard_rows=100)
    assert [unit.stop - unit.start for unit in ranges] == [400] * 5


def test_a_limit_counts_references_of_the_sample(tmp_path):
    names = [f"photos/{i}.jpg" for i in range(400)]
    kept = [i for i, name in enumerate(names) if sample_hash(name) < 0.5][:30]
    units = plan(parquet_file(tmp_path / "b.parquet", names), sample=0.5, limit=30)
    assert units[-1].stop == kept[-1] + 1
    assert len(uris(plan(text_file(tmp_path / "a.txt", names), sample=0.5, limit=30))) == 30


def test_a_listing_is_planned_as_a_file_whose_rows_are_its_matches(tmp_path):
    for name in ("b.jpg", "a.jpg", "sub/c.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
    units = plan(InputFile(str(tmp_path) + "/", "images"), shard_rows=2)
    assert sorted(uris(units)) == sorted(str(tmp_path / name) for name in ("a.jpg", "b.jpg", "sub/c.png"))
    assert tiles(units) == [(0, 2, False), (2, 3, True)]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"limit": 0}, "limit .* not 0"),
        ({"sample": 0.0}, "sample .* not 0.0"),
        ({"shard_rows": 0}, "shard_rows .* not 0"),
    ],
)
def test_bad_options_are_refused_by_name_and_value(change, message):
    with pytest.raises(ValueError, match=message):
        options(**change)


@pytest.mark.parametrize("limit", [None, 12])
def test_the_transform_plans_every_file(tmp_path, limit):
    files = [text_file(tmp_path / f"{i}.txt", [f"{i}-{j}.jpg" for j in range(5)]) for i in range(3)]
    expected = [f"{i}-{j}.jpg" for i in range(3) for j in range(5)][:limit]
    with beam.Pipeline(runner=FnApiRunner()) as p:
        units = p | PlanUnits(files, options(limit=limit, shard_rows=2), str(tmp_path / "staging"))
        found = units | beam.FlatMap(lambda unit: [uri for _, uri, *_ in unpack(unit.packed_refs)])
        assert_that(found, equal_to(expected))
