"""The command of docs/inputs.md runs, and its tables say what is so."""

import re
import shlex

import pyarrow as pa
import pytest

from beamlabel.transforms.inputs.image_columns import is_uri_name
from beamlabel.transforms.inputs.tables.csv_types import CellTypes
from support.jobs import TINY, label, photos
from support.paths import ROOT

PAGE = (ROOT / "docs" / "inputs.md").read_text()
SECTION = PAGE.partition("## CSV, TSV and JSON lines\n")[2].partition("\n## ")[0]
ROWS = [line.strip("| ").split(" | ") for line in SECTION.splitlines() if line.startswith("| ")][2:]
KINDS = {"bool": "bool", "int64": "int64", "double": "double", "date": "date32[day]", "string": "string"}


def test_the_command_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (command,) = re.findall(r"```bash\nbeamlabel (.*)\n```", SECTION)
    lines = [f"{number:03d},{path},oak\n" for number, path in enumerate(photos(tmp_path / "photos", 2))]
    (tmp_path / "photos.csv").write_text("id,photo,species\n" + "".join(lines))
    words = shlex.split(command)
    place = words.index("--output")
    words = [*words[: words.index("--module")], *words[place + 2 :]]
    job = label(tmp_path / "labels", *words, module=TINY)
    assert job.code == 0
    assert [(row["id"], row["truth"]) for row in job.rows] == [("000", "oak"), ("001", "oak")]


@pytest.mark.parametrize(("cells", "kind"), ROWS)
def test_the_table_of_types(cells, kind):
    examples = re.findall(r"`([^`]+)`", cells)
    for text in (example for example in examples if example not in ("+", ".0", "Z")):
        types = CellTypes()
        types.add(pa.array([text]))
        if kind == "string":
            # Some are so beside others only.
            assert str(types.type()) == "string" or text in ("9007199254740993", "0.5")
        else:
            assert str(types.type()) == KINDS.get(kind, "timestamp[us]")


def test_the_names_of_columns():
    names = re.findall(r"`(\w+)`", SECTION.partition("**The column of URIs**")[2].partition("\n\n")[0])
    assert {"uri", "image_url", "file_name"} <= set(names)
    assert all(is_uri_name(name) for name in names)
