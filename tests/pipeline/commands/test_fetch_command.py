"""``beamlabel fetch``: the mirror is the complete module, or nothing that could pass for one."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from beamlabel.pipeline.commands.fetch import fetch_module
from beamlabel.pipeline.errors import UsageError
from beamlabel.pipeline.job.prepare_module import resolve
from beamlabel.transforms.hub.resolve import resolve_module
from beamlabel.transforms.inference.artifact import ModuleError
from support.jobs import TINY, TINY_FEATURES, command, label, photos, uri_list
from support.paths import ROOT

HUB_PATH = "/google/imagenet/tiny/classification/1"


@pytest.fixture
def handle(http_server):
    """The handle of the tiny classifier on a test hub."""
    http_server.files[f"{HUB_PATH}?tf-hub-format=compressed"] = Path(TINY).read_bytes()
    return http_server.url_of(HUB_PATH)


def test_a_job_runs_from_the_mirror_when_the_hub_is_gone(handle, http_server, tmp_path):
    mirror = tmp_path / "modules" / "tiny"
    done = command("fetch", handle, mirror)
    assert done.returncode == 0, done.stderr
    fingerprint = resolve(TINY).fingerprint
    assert fingerprint in done.stderr
    assert sorted(path.name for path in mirror.parent.iterdir()) == ["tiny", "tiny.fetched.json"]
    record = json.loads((mirror.parent / "tiny.fetched.json").read_text())
    assert (record["handle"], record["fingerprint"]) == (handle, fingerprint)

    http_server.reset()
    uris = uri_list(tmp_path / "in.txt", photos(tmp_path / "photos", 2))
    job = label(tmp_path / "out", "--input", uris, module=mirror)
    assert job.code == 0
    assert {row["module_fingerprint"] for row in job.rows} == {fingerprint}
    other = label(tmp_path / "other", "--input", uris, module=TINY)
    assert [{**row, "module_handle": TINY} for row in job.rows] == other.rows


def test_a_mirror_in_a_bucket(handle, gcs, tmp_path):
    mirror = gcs.uri("modules/tiny")
    fetch_module(handle, mirror)
    module = resolve_module(mirror, tmp_path / "cache")
    assert module.fingerprint == resolve(TINY).fingerprint
    assert (module.handle, module.origin) == (mirror, handle)
    uploads = gcs.server.count("POST")
    fetch_module(handle, mirror + "/")
    assert gcs.server.count("POST") == uploads, "it was there already"


def test_what_the_hubs_convention_says_holds_for_the_mirror_too(http_server, tmp_path):
    """The handle, but not the mirror's path, shows that a module with one unnamed output is a feature vector."""
    from support.tf_modules import save_callable

    save_callable(tmp_path / "saved", 7)
    shutil.make_archive(str(tmp_path / "module"), "gztar", tmp_path / "saved")
    path = "/somebody/net/feature_vector/1"
    http_server.files[f"{path}?tf-hub-format=compressed"] = (tmp_path / "module.tar.gz").read_bytes()
    mirror = tmp_path / "mirror"
    uris = uri_list(tmp_path / "in.txt", photos(tmp_path / "photos", 1))
    fetch_module(http_server.url_of(path), str(mirror))
    assert len(label(tmp_path / "out", "--input", uris, module=mirror).rows[0]["embedding"]) == 7
    (tmp_path / "mirror.fetched.json").unlink()
    assert label(tmp_path / "none", "--input", uris, module=mirror).code == 2


def test_another_fetch_of_the_same_is_done_and_of_another_module_refused(tmp_path):
    mirror = tmp_path / "mirror"
    fetch_module(TINY, str(mirror))
    inode = (mirror / "saved_model.pb").stat().st_ino
    fetch_module(TINY, str(mirror))
    assert (mirror / "saved_model.pb").stat().st_ino == inode
    done = command("fetch", TINY_FEATURES, mirror)
    assert done.returncode == 2
    assert "exists and holds something else" in done.stderr
    assert resolve(str(mirror)).fingerprint == resolve(TINY).fingerprint


@pytest.mark.parametrize("change", ["more", "less", "other"])
def test_a_directory_that_is_not_quite_the_module_is_refused(tmp_path, change):
    mirror = tmp_path / "mirror"
    fetch_module(TINY, str(mirror))
    if change == "more":
        (mirror / "notes.txt").write_text("mine")
    elif change == "less":
        (mirror / "tfhub_module.pb").unlink()
    else:
        (mirror / "tfhub_module.pb").write_bytes(b"\x08\x04")
    before = sorted((path, path.stat().st_mtime_ns) for path in mirror.rglob("*"))
    with pytest.raises(UsageError, match="holds something else"):
        fetch_module(TINY, str(mirror))
    assert sorted((path, path.stat().st_mtime_ns) for path in mirror.rglob("*")) == before


def test_a_bucket_with_something_else_is_refused(gcs):
    gcs.put("modules/tiny/readme.txt", b"mine")
    with pytest.raises(UsageError, match=r"holds something else \(readme.txt\)"):
        fetch_module(TINY, gcs.uri("modules/tiny"))
    assert gcs.list() == ["modules/tiny/readme.txt"]


def test_a_killed_fetch_leaves_no_module_and_the_next_completes_it(gcs, tmp_path):
    mirror = gcs.uri("modules/tiny")
    gcs.server.delay(0.3)
    process = subprocess.Popen(
        [sys.executable, "-m", "beamlabel", "fetch", TINY, mirror], env=os.environ, stderr=subprocess.PIPE
    )
    while not gcs.list("modules/tiny/") and process.poll() is None:
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    gcs.server.delay(0)
    assert "modules/tiny/saved_model.pb" not in gcs.list()
    with pytest.raises(ModuleError, match="no module"):
        resolve_module(mirror, tmp_path / "cache")
    there = gcs.list("modules/tiny/")
    fetch_module(TINY, mirror)
    assert resolve_module(mirror, tmp_path / "cache").fingerprint == resolve(TINY).fingerprint
    assert set(there) < set(gcs.list("modules/tiny/"))


def test_an_upload_that_is_refused_leaves_no_module(gcs, tmp_path):
    gcs.server.fail_next(99, 403, method="POST")
    with pytest.raises(UsageError, match="DIR 'gs://"):
        fetch_module(TINY, gcs.uri("modules/tiny"))
    with pytest.raises(ModuleError):
        resolve_module(gcs.uri("modules/tiny"), tmp_path / "cache")


def test_a_cancelled_local_fetch_leaves_nothing(tmp_path, monkeypatch):
    def cancelled(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("beamlabel.transforms.hub.mirror.shutil.copyfile", cancelled)
    with pytest.raises(KeyboardInterrupt):
        fetch_module(TINY, str(tmp_path / "mirror"))
    assert list(tmp_path.iterdir()) == []


def test_a_keras_file_becomes_a_directory_of_one_file(tmp_path):
    (tmp_path / "mine.keras").write_bytes(b"weights")
    fetch_module(str(tmp_path / "mine.keras"), str(tmp_path / "mirror"))
    assert [path.name for path in (tmp_path / "mirror").iterdir()] == ["model.keras"]
    fingerprints = {resolve(str(tmp_path / name)).fingerprint for name in ("mine.keras", "mirror")}
    assert len(fingerprints) == 1


@pytest.mark.parametrize(
    ("module", "directory", "message"),
    [
        ("nowhere", "mirror", "MODULE: module nowhere"),
        (TINY, "https://example.org/tiny", "neither a local directory nor one in a bucket"),
        (TINY, "gs://bucket", "neither a local directory nor one in a bucket"),
        (TINY, "file", "is a file"),
        (TINY, "file/below", "file"),
    ],
)
def test_mistakes_are_usage_errors(tmp_path, module, directory, message):
    (tmp_path / "file").write_text("mine")
    done = command("fetch", module, directory, cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(ROOT)})
    assert done.returncode == 2, done.stderr
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_a_directory_within_the_module_is_refused(tmp_path):
    fetch_module(TINY, str(tmp_path / "mirror"))
    with pytest.raises(UsageError, match="within the module"):
        fetch_module(str(tmp_path / "mirror"), str(tmp_path / "mirror" / "copy"))
