import dataclasses

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from beamlabel.transforms.inputs import packed_refs
from beamlabel.transforms.inputs.packed_refs import RefSpiller
from beamlabel.transforms.inputs.parquet_source import ParquetColumns
from beamlabel.transforms.inputs.selection import Selection
from beamlabel.transforms.inputs.sources.source import SourceOptions
from beamlabel.transforms.records import InputFile, UnitEnd
from beamlabel.transforms.units import shared_units
from beamlabel.transforms.units.open_unit import open_unit, skip_unit
from beamlabel.transforms.units.plan_units import groups, plan_files

OPTIONS = SourceOptions(base_dir="/base", columns=ParquetColumns(uri="uri"))


def text(path, uris):
    path.write_text("".join(f"{uri}\n" for uri in uris))
    return InputFile(str(path), "text", path.stat().st_size)


def parquet(path, uris):
    pq.write_table(pa.table({"uri": pa.array(uris, pa.string())}), path)
    return InputFile(str(path), "parquet", path.stat().st_size)


def plan(files, **changes):
    return list(plan_files(enumerate(files), dataclasses.replace(OPTIONS, **changes)))


def opened(units, options=OPTIONS):
    return [list(open_unit(unit, options, Selection(options.selection))) for unit in units]


def test_a_thousand_files_of_one_image_are_one_unit(tmp_path):
    files = [
        (text if number % 2 else parquet)(tmp_path / f"{number:04}", [f"{number}.jpg"])
        for number in range(1000)
    ]
    (unit,) = plan(files)
    ((*refs, end),) = opened([unit])
    assert isinstance(end, UnitEnd) and (end.sent, end.skipped) == (1000, 0)
    assert [ref.uri for ref in refs] == [f"{number}.jpg" for number in range(1000)]
    assert [ref.ref_id for ref in refs] == [f"{file.path}#0" for file in files]
    assert [ref.row for ref in refs] == list(range(1000))
    assert {ref.unit_id for ref in refs} == {unit.unit_id} == {end.unit.unit_id}
    assert all(part.packed_refs is None for part in end.unit.parts)
    assert [(one.input_path, one.start, one.stop, one.last) for one in unit.ranges] == [
        (file.path, 0, 1, True) for file in files
    ]
    assert skip_unit(unit, OPTIONS, Selection(OPTIONS.selection)).input == 1000


def test_large_files_are_cut_as_ever_and_small_ones_beside_them_share(tmp_path):
    files = [text(tmp_path / "a", ["1", "2"]), text(tmp_path / "b", ["3"]),
             text(tmp_path / "c", [str(n) for n in range(4, 204)]),
             text(tmp_path / "d", []), text(tmp_path / "e", ["204"])]  # fmt: skip
    units = plan(files)
    assert [len(unit.parts) for unit in units] == [2, 0, 0, 0, 0, 2]
    assert [ref.uri for unit in opened(units) for ref in unit[:-1]] == [str(n) for n in range(1, 205)]
    assert [unit.unit_id for unit in units] == sorted({unit.unit_id for unit in units})


@pytest.mark.parametrize("shard_rows", [1, 2, 3, 7, 100])
def test_shard_rows_bound_shared_units(tmp_path, shard_rows):
    files = [text(tmp_path / f"{n:02}", [f"{n}-{row}" for row in range(n % 4)]) for n in range(30)]
    units = opened(plan(files, shard_rows=shard_rows))
    assert max(len(unit) - 1 for unit in units) <= shard_rows
    assert [ref.uri for unit in units for ref in unit[:-1]] == [
        f"{n}-{r}" for n in range(30) for r in range(n % 4)
    ]


@pytest.mark.parametrize("limit", [1, 5, 44, 45, 100])
def test_a_limit_counts_across_shared_files(tmp_path, limit):
    files = [text(tmp_path / f"{n:02}", [f"{n}-{row}" for row in range(n)]) for n in range(10)]
    units = opened(plan(files, limit=limit))
    uris = [f"{n}-{row}" for n in range(10) for row in range(n)]
    assert [ref.uri for unit in units for ref in unit[:-1]] == uris[:limit]


def test_a_unit_is_named_by_its_references(tmp_path):
    files = [text(tmp_path / name, [name]) for name in "abc"]
    (before,) = plan(files)
    assert plan(files) == [before]
    text(tmp_path / "b", ["other"])
    assert plan(files)[0].unit_id != before.unit_id


def test_what_parts_carry_is_staged_as_one_file(tmp_path, monkeypatch):
    files = [text(tmp_path / "a", ["1", "2"]), parquet(tmp_path / "b", ["3"]), text(tmp_path / "c", ["4"])]
    (unit,) = plan(files)
    monkeypatch.setattr(packed_refs, "CARRIED_BYTES", 0)
    staged = RefSpiller(str(tmp_path / "staging")).spill(unit)
    assert all(part.packed_refs is None for part in staged.parts)
    assert (
        len(list((tmp_path / "staging").rglob("*.*")) + list((tmp_path / "staging" / "references").iterdir()))
        == 1
    )
    assert [ref.uri for ref in opened([staged])[0][:-1]] == ["1", "2", "3", "4"]
    ((*_, end),) = opened([staged])
    assert end.unit.refs_path is None and end.unit.ranges == unit.ranges


def test_only_small_files_of_known_size_are_planned_together():
    def file(size):
        return InputFile("/x", "text", size)

    sizes = [1, 2, None, 3, 1 << 30, 4, 5, None]
    numbered = list(enumerate(map(file, sizes)))
    assert [[number for number, _ in group] for group in groups(numbered, in_order=False)] == [
        [0, 1], [2], [3], [4], [5, 6], [7]
    ]  # fmt: skip
    many = list(enumerate([file(1)] * (shared_units.MAX_SHARED_FILES + 1)))
    assert [len(group) for group in groups(many, in_order=False)] == [shared_units.MAX_SHARED_FILES, 1]
    assert groups(numbered, in_order=True) == [tuple(numbered)]
