"""References, listings and output on azfs:// through Beam's file system, against Azurite.

Only Beam's options name the server, for the launcher as for the workers.
"""

import io
import json
from typing import Any

import pyarrow.parquet as pq
import pytest

from beamlabel.transforms.storage import beam_setup
from support.jobs import command, label, photos

NAMES = ["a b.png", "ü漢.png", "50%20#x+.png", "broken.png"]


def test_nights_on_azure(azure: Any, tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    reached = [f"--azure_connection_string={azure.server.connection}"]
    monkeypatch.delenv("AZURE_STORAGE_CONNECTION_STRING")
    beam_setup.configure([])
    images = [path.read_bytes() for path in photos(tmp_path, 3)]
    uris = [
        azure.put(f"photos/{name}", data) for name, data in zip(NAMES, [*images, b"no image"], strict=True)
    ]
    azure.put("list.txt", "\n".join([*uris, azure.uri("photos/missing.png")]).encode())

    arguments = ("--input", azure.uri("list.txt"), "--max_error_rate", 1, *reached)
    assert label(azure.uri("labels/1"), *arguments).code == 0
    manifest = json.loads(azure.get("labels/1/_MANIFEST.json"))
    assert manifest["rows"] == {"input": 5, "predicted": 3, "failed": 2, "skipped": 0}
    rows: list[dict[str, Any]] = []
    failures: list[str] = []
    for file in manifest["files"]:
        content = azure.get(f"labels/1/{file['name']}")
        if file["kind"] == "data":
            rows += pq.read_table(io.BytesIO(content)).to_pylist()
        else:
            failures += [json.loads(line)["reason"] for line in content.splitlines()]
    assert [row["uri"] for row in rows] == uris[:3]
    assert sorted(failures) == ["not_an_image", "not_found"]
    assert not azure.list("labels/1/_staging")

    listing = ("--input", azure.uri("photos/"), "--input_format", "images", "--max_error_rate", 1, *reached)
    assert label(azure.uri("labels/2"), *listing, "--skip_labeled", azure.uri("labels/*/")).code == 0
    manifest = json.loads(azure.get("labels/2/_MANIFEST.json"))
    assert manifest["rows"] == {"input": 4, "predicted": 0, "failed": 0, "skipped": 4}
    assert manifest["skipped_by_reason"] == {"known_failure": 1, "labeled": 3}

    done = command("verify", azure.uri("labels/1"), *reached)
    assert done.returncode == 0, done.stdout + done.stderr
