"""Damaged files of failures end every command that reads them with a usage error that names them."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from beamlabel.pipeline.commands import compact, diff, evaluate, verify
from beamlabel.pipeline.commands.report import make_report
from beamlabel.pipeline.errors import UsageError
from support.damage import damaged
from support.jobs import label, photos, uri_list


@pytest.fixture(scope="module")
def output(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("rows")
    uris = uri_list(place / "list.txt", [*photos(place / "1", 2), "/gone.jpg"])
    job = label(place / "out", "--input", uris, "--max_error_rate", 1, "--report")
    assert job.code == 0
    return job.output


def _read(name: str, output: Path, other: Path) -> Any:
    if name == "report":
        return make_report(str(output))
    if name == "verify":
        return verify.main([str(output)])
    if name == "evaluate":
        return evaluate.main([str(output), "--truth", "parent"])
    if name == "diff":
        return diff.main([str(output), str(output)])
    shutil.rmtree(other, ignore_errors=True)
    return compact.main([str(output), "--output", str(other)])


@pytest.mark.parametrize("name", ["report", "verify", "evaluate", "diff", "compact"])
def test_a_failure_of_wrong_types_is_a_usage_error(output: Path, tmp_path: Path, name: str) -> None:
    (path,) = (output / "_failures").iterdir()
    text = path.read_text()
    assert _read(name, output, tmp_path / "other") == 0
    lines = [json.dumps(value) for _, value in damaged(json.loads(text), (7, [7], "x"))]
    refused = 0
    try:
        for line in [*lines, "{", "", "[" * 5000, "\ufeff{}", '{"reason": NaN}']:
            path.write_text(line + "\n")
            try:
                refused += _read(name, output, tmp_path / "other") != 0
            except UsageError as error:
                assert name == "verify" or path.name in str(error) or str(output) in str(error), line
                refused += 1
    finally:
        path.write_text(text)
    assert refused > 5


def test_a_damaged_failure_ends_a_run_that_skips(output: Path, tmp_path: Path) -> None:
    (path,) = (output / "_failures").iterdir()
    text = path.read_text()
    try:
        path.write_text(json.dumps({**json.loads(text), "failed_at": 7}) + "\n")
        job = label(tmp_path / "next", "--input", output.parent / "list.txt", "--skip_labeled", output)
    finally:
        path.write_text(text)
    assert job.code == 2


def test_deep_and_impossible_values_of_a_manifest_are_damage(output: Path, tmp_path: Path) -> None:
    path = output / "_MANIFEST.json"
    text = path.read_text()
    manifest = json.loads(text)
    deep: Any = 7
    for _ in range(300):
        deep = {"x": deep}
    metadata = manifest["metadata"]
    changes = [
        {"preprocessing": deep},
        {"plan_id": "\ud800"},
        {"metadata": {**metadata, "\ud800": "x"}},
        {"metadata": {**metadata, "beamlabel.num_classes": "x"}},
        {"files": [{**manifest["files"][0], "computed_by": "x"}]},
    ]
    try:
        for change in changes:
            path.write_text(json.dumps({**manifest, **change}))
            for name in ("report", "diff", "compact"):
                with pytest.raises(UsageError, match="damaged"):
                    _read(name, output, tmp_path / "other")
        path.write_text(json.dumps({**manifest, "committed_at": "0001-01-01T00:00:00+23:59"}))
        assert _read("report", output, tmp_path / "other") == 0
    finally:
        path.write_text(text)


def test_a_failure_without_a_reference_has_no_directory(output: Path, capsys: Any) -> None:
    (path,) = (output / "_failures").iterdir()
    text = path.read_text()
    try:
        path.write_text(json.dumps({**json.loads(text), "uri": None, "reason": "null_uri"}) + "\n")
        assert _read("evaluate", output, output) == 0
    finally:
        path.write_text(text)
