"""docs/output.md is true: its lists are the code's, and its query finds copies."""

import re
import shutil

import duckdb

from beamlabel.transforms.secrets import names as table
from support.jobs import label, photos, uri_list
from support.paths import ROOT

PAGE = (ROOT / "docs" / "output.md").read_text()


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


def test_the_query_finds_copies(tmp_path, monkeypatch):
    paths = photos(tmp_path / "photos", 3)
    shutil.copy(paths[1], tmp_path / "photos" / "copy.png")
    uris = uri_list(tmp_path / "list.txt", [*paths, tmp_path / "photos" / "copy.png"])
    job = label(tmp_path / "out" / "sample", "--input", uris)
    monkeypatch.chdir(tmp_path)
    (query,) = re.findall(r"```sql\n(.*?)```", PAGE, re.DOTALL)
    ((content, copies, _),) = duckdb.sql(query).fetchall()
    assert (content, copies) == (job.rows[1]["content_hash"], 2)
