"""docs/output.md is correct: its lists agree with the code, and its readers read a run's output."""

import re
import shutil
from pathlib import Path

import duckdb
import pytest

from beamlabel.transforms.records import Reason
from beamlabel.transforms.secrets import names as table
from support.jobs import label, photos, uri_list
from support.paths import ROOT

PAGE = (ROOT / "docs" / "output.md").read_text()
READERS = PAGE.partition("## Read the rows")[2].partition("\n## ")[0]
PROGRAMS = {
    title: re.findall(r"^```python\n(.*?)^```$", section, re.DOTALL | re.MULTILINE)
    for title, section in re.findall(r"^### (.*?)\n(.*?)(?=^### |\Z)", READERS, re.DOTALL | re.MULTILINE)
}
NEEDS = {
    "pandas": "pandas",
    "polars": "polars",
    "DuckDB": "duckdb",
    "Hugging Face datasets": "datasets",
    "tf.data": "tensorflow",
    "Spark": "pyspark",
}


def test_the_credentials_are_those_of_the_code():
    lists = PAGE.partition("## Credentials")[2].split("\n- ")[1:]
    prefixes, names, _, azure, signed, nginx = (
        set(re.findall(r"`([^`]+)`", text.partition(":")[2] or text)) for text in lists
    )
    assert prefixes == set(table.PREFIXES)
    assert names == table.NAMES
    assert azure == table.BESIDE["sig"]
    assert signed == table.BESIDE["signature"]
    assert nginx == table.BESIDE["expires"]


def test_every_reason_is_explained():
    section = PAGE.partition("\n## Failures")[2].partition("\n## ")[0]
    explained = re.findall(r"^\| `([a-z_]+)` \| ", section, re.MULTILINE)
    assert explained == [reason.value for reason in Reason]


@pytest.fixture(scope="module")
def place(tmp_path_factory, cache):
    """The outputs that the page reads, from small modules."""
    pytest.importorskip("tensorflow")
    from support.tf_modules import FEATURES, save_two_outputs

    directory = tmp_path_factory.mktemp("output")
    paths = photos(directory / "photos", 3)
    shutil.copy(paths[1], directory / "photos" / "copy.png")
    uris = uri_list(
        directory / "list.txt", [*paths, directory / "photos" / "copy.png", directory / "missing.png"]
    )
    names = uri_list(directory / "names.txt", [f"class {number}" for number in range(11)])
    few = uri_list(directory / "few.txt", [f"kind {number}" for number in range(5)])
    more = ("--input", uris, "--max_error_rate", 1)
    for output, extra in {
        "out/sample": (),
        "out/records": ("--output_format", "tfrecord"),
        "labels/dt=2026-11-23": (),
    }.items():
        assert label(directory / output, *more, "--labels", names, *extra).code == 0
    other = save_two_outputs(directory / "other", size=8)
    assert label(directory / "labels/dt=2026-11-24", *more, "--labels", few, module=other).code == 0
    assert FEATURES != 64
    return directory


def test_the_columns_are_those_of_a_run(place):
    section = PAGE.partition("## Columns")[2].partition("\n## ")[0]
    first = re.findall(r"^\| ((?:`\w+`(?:, )?)+) \|", section, re.MULTILINE)
    told = [name for cell in first for name in re.findall(r"`(\w+)`", cell)]
    described = duckdb.sql(f"DESCRIBE SELECT * FROM '{place}/out/sample/*.parquet'").fetchall()
    assert set(told) == {row[0] for row in described}


def columns(read) -> set[str]:
    """The names of the columns; ``datasets`` has another attribute for them."""
    return set(getattr(read, "column_names", None) or read.columns)


@pytest.mark.parametrize("reader", NEEDS)
def test_the_readers_read_all_rows(place, monkeypatch, tmp_path, reader):
    """Runs each program of the page with the size of this module's embeddings."""
    pytest.importorskip(NEEDS[reader], reason=f"{NEEDS[reader]} is not installed")
    monkeypatch.chdir(place)
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "datasets"))
    (program,) = PROGRAMS[reader]
    names: dict = {}
    exec(compile(program.replace("[1280]", "[64]"), "output.md", "exec"), names)
    if reader == "tf.data":
        rows = list(names["rows"].as_numpy_iterator())
        assert len(rows) == 4 and all(row["embedding"].shape == (64,) for row in rows)
        return
    if reader == "Spark":
        assert names["table"].count() == 4
        return
    assert len(names["table"]) == 4
    assert {"uri", "label", "embedding"} <= columns(names["table"])
    nights = names["nights"]
    assert len(nights) == 8
    assert {"uri", "label", "score"} <= columns(nights)
    labels = list(nights["label"])
    assert {str(name).split()[0] for name in labels} == {"class", "kind"}


def test_every_reader_is_run():
    # BigQuery is not available here; tests/project/test_nightly_docs.py checks the arguments of `bq`.
    assert set(PROGRAMS) == {*NEEDS, "BigQuery"} and not PROGRAMS["BigQuery"]


def test_the_query_finds_copies(place, monkeypatch):
    monkeypatch.chdir(place)
    (query,) = re.findall(r"```sql\n(.*?)```", PAGE, re.DOTALL)
    ((_, copies, first),) = duckdb.sql(query).fetchall()
    assert copies == 2 and Path(first).name in ("copy.png", "photo 001.png")
