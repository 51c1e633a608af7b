"""Unusable places: one line that names the option or variable, exit code 2, and no traceback."""

import os
import shutil
import subprocess
import sys

import pytest

from beamlabel.transforms.hub.download import hub_directory
from beamlabel.transforms.hub.resolve import resolve_module
from support.jobs import TINY, photos, uri_list
from support.paths import ROOT
from support.read_only import with_read_only
from support.servers import FileServer

NOBODY = ["unshare", "--user", "--map-user=54321"]


def told(*words, before=(), **environment):
    """The lines of a refused command without the hint at ``--help``."""
    argv = [*before, sys.executable, "-m", "beamlabel", *map(str, words)]
    given = {**os.environ, "PYTHONPATH": str(ROOT), **environment}
    given = {name: value for name, value in given.items() if value is not None}
    done = subprocess.run(argv, capture_output=True, text=True, check=False, env=given)
    assert done.returncode == 2, done.stderr
    assert "Traceback" not in done.stderr
    *lines, hint = done.stderr.splitlines()
    assert hint.startswith("Try '")
    return lines


def job(tmp_path, module=TINY):
    uris = uri_list(tmp_path / "list.txt", photos(tmp_path / "photos", 2))
    return "--input", uris, "--module", module, "--output", tmp_path / "out"


@pytest.mark.parametrize("command", ["job", "inspect"])
def test_no_home_and_no_user(tmp_path, command):
    if not shutil.which("unshare") or subprocess.run([*NOBODY, "true"], check=False).returncode:
        pytest.skip("no user namespaces on this machine")
    words = job(tmp_path) if command == "job" else ("inspect", TINY)
    (line,) = told(*words, before=NOBODY, HOME=None, XDG_CACHE_HOME=None, BEAMLABEL_CACHE=None)
    assert "there is no home directory" in line
    assert "set BEAMLABEL_CACHE to a directory" in line


@pytest.mark.parametrize("holds", [(), ("something",)])
@pytest.mark.parametrize("module", [TINY, "demo", "http://localhost:9/module/1"])
def test_a_cold_cache_that_cannot_be_written(tmp_path, holds, module):
    cache = tmp_path / "cache"
    cache.mkdir()
    for name in holds:
        (cache / name).touch()
    (line,) = told(
        *job(tmp_path, module), before=with_read_only(cache), BEAMLABEL_CACHE=str(cache), TFHUB_CACHE_DIR=None
    )
    assert str(cache) in line
    assert "cannot be written" in line
    assert "set BEAMLABEL_CACHE to another directory" in line
    assert not (tmp_path / "out").exists()


def test_a_cache_of_tensorflow_hub_that_lacks_the_module_and_cannot_be_written(tmp_path):
    shared = tmp_path / "shared"
    shared.mkdir()
    (line,) = told(
        *job(tmp_path, "http://localhost:9/module/1"),
        before=with_read_only(shared),
        BEAMLABEL_CACHE=str(tmp_path / "cache"),
        TFHUB_CACHE_DIR=str(shared),
    )
    assert f"the cache {shared} does not hold it and cannot be written; set TFHUB_CACHE_DIR" in line


def test_a_module_in_a_read_only_cache_of_tensorflow_hub_is_used(tmp_path):
    shared, server = tmp_path / "shared", FileServer()
    try:
        handle = server.url_of("/module/1")
    finally:
        server.close()
    shutil.copytree(resolve_module(TINY, tmp_path / "unpacked").path, hub_directory(handle, shared))
    argv = [
        *with_read_only(shared), sys.executable, "-m", "beamlabel", *map(str, job(tmp_path, handle)),
    ]  # fmt: skip
    given = {**os.environ, "PYTHONPATH": str(ROOT), "TFHUB_CACHE_DIR": str(shared)}
    done = subprocess.run(argv, capture_output=True, text=True, check=False, env=given)
    assert done.returncode == 0, done.stderr
    assert "2 predicted" in done.stderr


def test_an_image_of_the_web_as_input(tmp_path):
    words = ("--input", "https://example.org/a.jpg", "--module", TINY, "--output", tmp_path / "out")
    (line,) = told(*words)
    assert "--input 'https://example.org/a.jpg'" in line
    assert "--allow_http" in line


def test_a_tilde_in_the_cache_is_the_home_directory(tmp_path):
    words = ("inspect", tmp_path / "no such module")
    told(*words, HOME=str(tmp_path / "home"), BEAMLABEL_CACHE="~/cache")
    assert (tmp_path / "home" / "cache").is_dir()
    assert not (ROOT / "~").exists()
