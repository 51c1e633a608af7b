"""Every command of docs/commands.md runs, with other bucket names and hub address."""

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from beamlabel.pipeline.options.command_table import COMMANDS
from beamlabel.transforms.storage.identity import image_id
from support.exit_code_tables import OF_JOBS, in_tables
from support.jobs import TINY, label, photos, uri_list
from support.paths import ROOT

PAGE = (ROOT / "docs" / "commands.md").read_text()
LINES = [line for block in re.findall(r"```bash\n(.*?)```", PAGE, re.DOTALL) for line in block.splitlines()]


@pytest.fixture
def place(gcs, http_server, tmp_path, monkeypatch):
    """A hub, a result in a bucket, and truth files; yields a function that maps a line's words to local ones."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    handle = "/google/imagenet/mobilenet_v2_075_160/classification/1"
    http_server.files[handle] = Path(TINY).read_bytes()
    uris = [str(path) for path in photos(tmp_path / "photos", 3)]
    pq.write_table(pa.table({"uri": uris, "species": ["class 1", "class 2", "class 3"]}), "in.parquet")
    names = uri_list(tmp_path / "names.txt", [f"class {number}" for number in range(11)])
    arguments = ("--input", "in.parquet", "--keep_columns", "species", "--labels", names)
    assert label(gcs.uri("labels/2026"), *arguments).code == 0
    for name in gcs.list("labels/2026/"):
        gcs.put(name.replace("2026", "dt=2026-11-23", 1), gcs.get(name))
    Path("truth.csv").write_text(
        "uri,class\n" + "".join(f"{uri},{number}\n" for number, uri in enumerate(uris))
    )
    Path("corrections.csv").write_text(
        f"image_id,uri,verdict,label\n{image_id(uris[0])},{uris[0]},wrong,class 3\n"
    )

    def here(line: str) -> list[str]:
        line = line.replace("https://tfhub.dev", http_server.url).replace("gs://labels/", gcs.uri("labels/"))
        return shlex.split(line.replace("gs://models/", gcs.uri("models/")))

    return here


def test_every_command_is_described():
    assert re.findall("^## (.*)$", PAGE, re.MULTILINE) == ["Exit codes", *COMMANDS]
    assert {shlex.split(line)[1] for line in LINES} == set(COMMANDS)


def test_the_exit_codes_are_the_programs():
    section = PAGE.partition("## Exit codes")[2].partition("\n## ")[0]
    # 141: the reader of a command's answer has gone.
    assert in_tables(section) == OF_JOBS | {141}


@pytest.mark.parametrize("line", LINES)
def test_the_commands_run(place, line):
    if "models/mine" in line:
        from support.own_modules import save_own

        save_own(Path("models/mine"), TINY, Path("cache"))
    words = place(line)
    if words[1] == "train":
        more = [str(path) for path in photos(Path("more"), 16)]
        Path("truth.csv").write_text(
            "uri,class\n" + "".join(f"{uri},{number % 2}\n" for number, uri in enumerate(more))
        )
        assert label(words[2], "--input", "more/", "--if_exists", "overwrite").code == 0
    assert words[0] == "beamlabel"
    done = subprocess.run(
        [sys.executable, "-m", "beamlabel", *words[1:]], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
