"""CSV records without a closing quotation mark: each fails alone at a bounded cost."""

from __future__ import annotations

import pytest

from beamlabel.transforms.inputs.tables.csv_records import csv_records
from beamlabel.transforms.inputs.tables.describe import first_records


def test_a_record_without_an_end_fails_alone() -> None:
    lines = [b'1,"no end\n', *(b"%d,x,y\n" % number for number in range(2, 200_000))]
    records = list(csv_records(iter([b"".join(lines)]), ","))
    assert [record.raw for record in records] == lines
    assert [record.fields[0] for record in records[1:]] == [str(number) for number in range(2, 200_000)]
    assert records[0].problem


def test_text_that_would_be_read_again_and_again_is_refused() -> None:
    with pytest.raises(ValueError, match="quotation marks"):
        for _ in csv_records(iter([b'a",",\n' * 50_000]), ","):
            pass


def test_a_long_cell_in_the_first_row_hides_no_header() -> None:
    text = b"uri,note\na.jpg," + b"x" * 300_000
    names = [record.fields for record in first_records(text[: 1 << 18], complete=False, delimiter=",")]
    assert names == [["uri", "note"]]
