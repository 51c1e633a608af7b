"""The commands of docs/inputs.md run, and its tables agree with the code."""

import re
import shlex

import pyarrow as pa
import pytest

from beamlabel.transforms.inputs.image_columns import is_uri_name
from beamlabel.transforms.inputs.tables.csv_types import CellTypes
from support.archives import tar
from support.jobs import TINY, FinishedJob, command, label, photos
from support.paths import ROOT

PAGE = (ROOT / "docs" / "inputs.md").read_text()
SECTION = PAGE.partition("## CSV, TSV and JSON lines\n")[2].partition("\n## ")[0]
ROWS = [line.strip("| ").split(" | ") for line in SECTION.splitlines() if line.startswith("| ")][2:]
KINDS = {"bool": "bool", "int64": "int64", "double": "double", "date": "date32[day]", "string": "string"}


def commands(title: str) -> list[list[str]]:
    """The words of the commands in a section of the page."""
    section = PAGE.partition(f"\n## {title}\n")[2].partition("\n## ")[0]
    (block,) = re.findall(r"^```bash\n(.*?)^```$", section, re.DOTALL | re.MULTILINE)
    lines = block.replace("\\\n", " ").splitlines()
    return [shlex.split(line.replace("$TOKEN", "a-token"))[1:] for line in lines]


def run(words: list[str], output, **here: str) -> FinishedJob:
    """Labels with the options of a command; ``here`` maps the module and paths to local ones."""
    place, module = words.index("--output"), words.index("--module")
    words = [word for number, word in enumerate(words) if number not in range(place, place + 2)]
    words = [word for number, word in enumerate(words) if number not in range(module, module + 2)]
    for old, new in here.items():
        words = [word.replace(PLACES[old], new) for word in words]
    return label(output, *words, module=TINY)


PLACES = {
    "shards": "gs://shards/",
    "last": "000127",
    "s3": "s3://photos/",
    "s3_server": "http://minio.example:9000",
}


def test_the_command_for_a_table(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (words,) = commands("CSV, TSV and JSON lines")
    lines = [f"{number:03d},{path},oak\n" for number, path in enumerate(photos(tmp_path / "photos", 2))]
    (tmp_path / "photos.csv").write_text("id,photo,species\n" + "".join(lines))
    job = run(words, tmp_path / "labels")
    assert job.code == 0
    assert [(row["id"], row["truth"]) for row in job.rows] == [("000", "oak"), ("001", "oak")]


def test_the_command_for_archives(gcs, tmp_path):
    (words,) = commands("Archives")
    for number, path in enumerate(photos(tmp_path / "photos", 2)):
        sample = {"cls": b"7", "json": b'{"caption": "a tree"}', "png": path.read_bytes()}
        members = {f"{number}.{name}": content for name, content in sample.items()}
        gcs.put(f"shards/train-{number:06d}.tar", tar(members))
    job = run(words, tmp_path / "labels", shards=gcs.uri("shards/"), last="000001")
    assert job.code == 0
    assert [(row["cls"], row["caption"]) for row in job.rows] == [(7, "a tree")] * 2


def test_the_command_for_the_web(http_server, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (words,) = commands("The web")
    (path,) = photos(tmp_path / "photos", 1)
    http_server.files["/a.png"] = path.read_bytes()
    (tmp_path / "urls.txt").write_text(f"{http_server.url}/a.png\n")
    job = run([*words, "--allow_private_hosts"], tmp_path / "labels")
    assert job.code == 0 and len(job.rows) == 1
    headers = {name.lower(): value for name, value in http_server.requests[0].headers.items()}
    assert headers["authorization"] == "Bearer a-token" and headers["x-client"] == "museum"
    assert headers["user-agent"].startswith("museum-labels/1.0")


def test_the_commands_for_s3(s3, tmp_path):
    words, verify = commands("Places")
    (path,) = photos(tmp_path / "photos", 1)
    s3.put("2026/a.png", path.read_bytes())
    job = run(words, s3.uri("labels"), s3=f"{s3.url}/", s3_server=s3.server.url)
    assert job.code == 0
    words = [word.replace("s3://labels/2026", s3.uri("labels")) for word in verify]
    done = command(*(word.replace(PLACES["s3_server"], s3.server.url) for word in words))
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(("cells", "kind"), ROWS)
def test_the_table_of_types(cells, kind):
    examples = re.findall(r"`([^`]+)`", cells)
    for text in (example for example in examples if example not in ("+", ".0", "Z")):
        types = CellTypes()
        types.add(pa.array([text]))
        if kind == "string":
            # Some texts are strings only beside other values.
            assert str(types.type()) == "string" or text in ("9007199254740993", "0.5")
        else:
            assert str(types.type()) == KINDS.get(kind, "timestamp[us]")


def test_the_names_of_columns():
    names = re.findall(r"`(\w+)`", SECTION.partition("**The column of URIs**")[2].partition("\n\n")[0])
    assert {"uri", "image_url", "file_name"} <= set(names)
    assert all(is_uri_name(name) for name in names)
