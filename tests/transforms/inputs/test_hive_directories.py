import pyarrow as pa
import pytest

from beamlabel.transforms.inputs.hive_directories import directory_values
from beamlabel.transforms.inputs.kept_columns import KeptColumn, KeptReader, directory_columns, kept_column


@pytest.mark.parametrize(
    ("path", "values"),
    [
        ("/in/a.parquet", {}),
        ("/in/dt=2026-01-31/country=NA/part-0.parquet", {"dt": "2026-01-31", "country": "NA"}),
        ("gs://bucket/dt=2026-01-31/x=y.jpg", {"dt": "2026-01-31"}),
        ("/in/n=00123/a", {"n": "00123"}),
        ("/in/n=__HIVE_DEFAULT_PARTITION__/a", {"n": None}),
        ("/in/at=2026-01-31 10%3A00%3A00/a", {"at": "2026-01-31 10:00:00"}),
        ("/in/q=a%2Fb%25+c/a", {"q": "a/b%+c"}),
        ("/in/q=%FF/a", {"q": "%FF"}),
        ("/in/q=\udcff/a", {"q": r"\udcff"}),
        ("/in/stadt=Köln 漢/a", {"stadt": "Köln 漢"}),
        ("/in/formula=a=b/a", {"formula": "a=b"}),
        ("/in/empty=/a", {"empty": ""}),
        ("/in/=x/a", {}),
        ("/in/a=1/b/a=1/c", {"a": "1"}),
        ("/in/a=1/b/a=2/k=v/c", {"k": "v"}),
        ("https://host/a=1/i.jpg?x=2/b=3/c", {"a": "1"}),
    ],
)
def test_the_columns_of_a_path(path, values):
    assert directory_values(path) == values


def test_a_file_of_its_own_column_is_not_asked_for_its_directory():
    schema = pa.schema([("dt", pa.date32())])
    column = kept_column("dt", schema, "/in/dt=2026-01-31/a.parquet")
    assert column == KeptColumn("dt", "dt", pa.date32())


def test_a_directory_is_a_column_of_strings_and_may_be_renamed():
    schema, path = (
        pa.schema([("uri", pa.string())]),
        "/in/dt=2026-01-31/n=__HIVE_DEFAULT_PARTITION__/a.parquet",
    )
    columns = [kept_column(text, schema, path) for text in ("dt=day", "n")]
    assert columns == [KeptColumn("dt", "day", pa.string()), KeptColumn("n", "n", pa.string())]
    batch = pa.record_batch({"uri": ["a", "b"]})
    found = [values.to_pylist() for values in KeptReader(schema, columns, path).read(batch, 0)]
    assert found == [["2026-01-31"] * 2, [None, None]]
    with pytest.raises(ValueError, match=r"'x': no such column in .*; columns: uri .*, dt, n"):
        kept_column("x", schema, path)


def test_what_lies_in_no_such_directory_is_null():
    column = KeptColumn("dt", "dt", pa.string())
    assert directory_columns("/photos/a.jpg", [column])[0].to_pylist() == [None]
    assert directory_columns("/photos/dt=x/a.jpg", [column])[0].to_pylist() == ["x"]
