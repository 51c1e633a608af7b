import dataclasses
import json

import pytest

from beamlabel.pipeline.job.commit import ConservationError, check_records, commit
from beamlabel.transforms.records import FileRange, InputFile, UnitRecord

FILES = [InputFile("a.txt", "text"), InputFile("b.parquet", "parquet")]


def record(path, start, stop, *, last=False, file_rows=None):
    number = [file.path for file in FILES].index(path) if path in {"a.txt", "b.parquet"} else 9
    return UnitRecord(
        unit_id=f"{number:05d}-{start:012d}", ranges=(FileRange(path, start, stop, last, file_rows),),
        input=stop - start, predicted=stop - start, failed={}, skipped=0, files=(),
    )  # fmt: skip


GOOD = [
    record("a.txt", 0, 4),
    record("a.txt", 4, 6, last=True),
    record("b.parquet", 0, 3, last=True, file_rows=3),
]


def test_records_that_tile_all_files_are_good():
    check_records(GOOD, FILES, limited=False)


@pytest.mark.parametrize(
    ("records", "message"),
    [
        (GOOD[:2], "matched but not read: b.parquet"),
        (GOOD[1:], "a.txt: rows 0 to 4"),
        ([GOOD[0], GOOD[2]], "a.txt: the units end at row 4, before the end of the file"),
        ([GOOD[0], GOOD[0], GOOD[1], GOOD[2]], "a.txt: rows 4 to 0 are in no unit or in two"),
        (
            [*GOOD[:2], record("b.parquet", 0, 3, last=True, file_rows=4)],
            "3 rows were read, but its footer says 4",
        ),
        ([*GOOD, record("c.txt", 0, 1, last=True)], "read but not matched: c.txt"),
        ([GOOD[0], record("a.txt", 5, 6, last=True), GOOD[2]], "rows 4 to 5"),
    ],
)
def test_anything_else_breaks_the_run(records, message):
    with pytest.raises(ConservationError, match=message):
        check_records(records, FILES, limited=False)


def test_a_record_that_does_not_conserve_cannot_be_made():
    with pytest.raises(ValueError, match="4 input rows, but 3 predicted"):
        dataclasses.replace(GOOD[0], predicted=3)


def test_the_first_commit_wins(tmp_path):
    path = commit(reversed(GOOD), staging_dir=str(tmp_path), files=FILES, limited=False)
    first = (tmp_path / "commit.json").read_bytes()
    assert path == str(tmp_path / "commit.json")
    assert [r["ranges"][0]["start"] for r in json.loads(first)["records"]] == [0, 4, 0]
    commit(GOOD, staging_dir=str(tmp_path), files=FILES, limited=False)
    assert (tmp_path / "commit.json").read_bytes() == first
