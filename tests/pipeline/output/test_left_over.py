"""A published run leaves no staging of any plan behind, or reports the kept files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from support.committed import Directory, commit_run
from support.jobs import label, photos, uri_list


@pytest.fixture
def uris(tmp_path: Path) -> Path:
    return uri_list(tmp_path / "list.txt", photos(tmp_path / "photos", 8))


@pytest.mark.parametrize("if_exists", ["resume", "error", "overwrite"])
@pytest.mark.parametrize("exists", [False, True])
def test_nothing_is_left_of_killed_runs_of_other_plans(
    tmp_path: Path, uris: Path, cut_off: Any, if_exists: str, exists: bool
) -> None:
    if exists and if_exists == "error":
        pytest.skip("refused")
    out = tmp_path / "out"
    if exists:
        assert label(out, "--input", uris, "--top_k", 3).code == 0
    begin = "resume" if exists else "error"
    assert cut_off(out, "--input", uris, "--shard_rows", 2, "--if_exists", begin).code == 3
    places = [*tmp_path.glob("_beamlabel-*"), *out.glob("_beamlabel")]
    assert any(list(place.glob("staging/*/units/*.json")) for place in places)
    assert label(out, "--input", uris, "--top_k", 2, "--if_exists", if_exists).code == 0
    assert not [path for path in tmp_path.rglob("_beamlabel*") if list(path.rglob("staging*"))]
    assert not list(tmp_path.glob("_beamlabel-*"))


def test_publishing_says_what_it_kept(tmp_path: Path, uris: Path, cut_off: Any, caplog: Any) -> None:

    from beamlabel.pipeline.commands.publish import publish_committed

    out = tmp_path / "out"
    out.mkdir()
    assert cut_off(out, "--input", uris, "--shard_rows", 2).code == 3
    (kept,) = out.glob("_beamlabel/staging/*")
    commit_run(Directory(tmp_path), 1)
    caplog.clear()
    assert publish_committed(str(out)) == 0
    told = [record.getMessage() for record in caplog.records if record.getMessage().startswith("Kept ")]
    assert len(told) == 1
    assert str(kept) in told[0]
    assert "--if_exists overwrite" in told[0]
    assert label(out, "--input", uris, "--if_exists", "overwrite").code == 0
    assert not kept.exists()
