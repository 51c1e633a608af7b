"""Unintended or unwritable directories and files are detected before any work."""

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from beamlabel.pipeline.errors import UsageError
from beamlabel.pipeline.places import local
from beamlabel.pipeline.places.cache import check_cache, check_scratch
from beamlabel.pipeline.places.outputs import check_directory, check_file
from beamlabel.transforms.storage.host_cache import NOWHERE, cache_dir
from support.paths import ROOT


@pytest.fixture
def places(tmp_path, monkeypatch):
    """A home, a temporary and a working directory, with files that may exist at an output's place."""
    for name in ("home/me", "temporary", "work/here"):
        (tmp_path / name).mkdir(parents=True)
    monkeypatch.setenv("HOME", str(tmp_path / "home" / "me"))
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    monkeypatch.chdir(tmp_path / "work" / "here")
    (tmp_path / "file").write_text("no directory")
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "nowhere").symlink_to("not mounted/out")
    (tmp_path / "to_new").symlink_to("new")
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "to_root").symlink_to("/")
    (tmp_path / "to_home").symlink_to("home/me")
    return tmp_path


@pytest.mark.parametrize(
    ("directory", "why"),
    [
        ("/", "root"), ("//", "root"), ("/..", "root"), ("file:///", "root"), ("{}/to_root", "root"),
        ("{}/home/me", "home"), ("{}/home/me/", "home"), ("{}/home", "home"), ("{}", "home"), ("{}/to_home", "home"),
        ("file://{}/home/me", "home"), ("{}/temporary", "temporary"), ("..", "current directory"), ("../..", "holds"),
        ("{}/file", "is a file"), ("{}/file/below/it", "is a file"), ("{}/pipe", "is a file"), ("{}/nowhere", "a link"),
        ("{}/loop", "loop"), ("/proc/self", "to the system"), ("/sys/x", "to the system"),
        ("/dev/null", "to the system"), ("/dev", "to the system"),
        ("{}/" + "x" * 300, "too long"), ("{}/\udcff", "UTF-8"), ("{}/a\udcffb/c", "UTF-8"), ("", "empty"),
        ("gs://", "bucket"), ("gs:///directory", "bucket"), ("s3://", "bucket"),
        ("file://elsewhere/x", "of this machine"),
    ],
)  # fmt: skip
def test_no_directory_for_an_output(directory, why, places):
    with pytest.raises(UsageError, match=why) as raised:
        check_directory("--output", directory.format(places))
    assert str(raised.value).startswith("--output")


@pytest.mark.parametrize(
    "directory",
    [
        "new",
        "{}/new/below",
        ".",
        "{}/home/me/labels",
        "{}/temporary/out",
        "/dev/shm/out",
        "{}/to_home/x",
        "{}/to_new",
    ],
)
def test_a_directory_for_an_output(directory, places):
    if directory.startswith("/dev/shm") and not Path("/dev/shm").is_dir():
        pytest.skip("no /dev/shm")
    given = directory.format(places)
    assert check_directory("--output", given + "/") == os.path.realpath(given)
    assert not Path("new").exists()


def test_a_bucket_is_a_directory():
    assert check_directory("--output", "gs://bucket/") == "gs://bucket"


@pytest.mark.parametrize(
    "file", ["{}", "{}/new/", "{}/pipe", "{}/file/x.csv", "/dev/null", "{}/\udcff.csv", ""]
)
def test_no_file_to_write(file, places):
    with pytest.raises(UsageError, match="--errors"):
        check_file("--errors", file.format(places))


@pytest.mark.parametrize("file", ["new.csv", "{}/file", "{}/new/below.csv"])
def test_a_file_to_write(file, places):
    assert check_file("--errors", file.format(places)) == str(Path.cwd() / file.format(places))


def test_the_current_directory_is_gone(places):
    shutil.rmtree(places / "work")
    with pytest.raises(UsageError, match="current directory no longer exists"):
        check_directory("--output", "out")


def test_caches(places, monkeypatch):
    monkeypatch.setenv("BEAMLABEL_CACHE", str(places / "new" / "cache"))
    check_cache()
    assert [*(places / "new" / "cache").iterdir()] == []
    for cache in (places / "file", places / "file" / "x", "/proc/x"):
        monkeypatch.setenv("BEAMLABEL_CACHE", str(cache))
        with pytest.raises(UsageError, match="BEAMLABEL_CACHE"):
            check_cache()


def test_a_cache_that_came_with_an_image_may_be_read_only(places, monkeypatch):
    cache = places / "cache"
    cache.mkdir()
    monkeypatch.setenv("BEAMLABEL_CACHE", str(cache))
    monkeypatch.setattr(local, "_why_not", lambda directory: "Read-only file system")
    with pytest.raises(UsageError, match="BEAMLABEL_CACHE"):
        check_cache()
    (cache / "modules").mkdir()
    check_cache()


def test_without_a_home_directory_nothing_is_made_of_a_tilde(places, monkeypatch):
    monkeypatch.setenv("BEAMLABEL_CACHE", "")
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr(os.path, "expanduser", lambda path: path)  # as for a user without an account
    assert cache_dir() == NOWHERE
    with pytest.raises(UsageError, match="BEAMLABEL_CACHE"):
        check_cache()
    assert not Path("~").exists()


def test_no_temporary_directory(monkeypatch):
    def none():
        raise FileNotFoundError(2, "No usable temporary directory found")

    monkeypatch.setattr(tempfile, "gettempdir", none)
    with pytest.raises(UsageError, match="TMPDIR"):
        check_scratch()


_PROGRAM = """
import os, sys
from beamlabel.pipeline.errors import UsageError
from beamlabel.pipeline.places.cache import check_cache
from beamlabel.pipeline.places.outputs import check_file, check_directory
os.environ["BEAMLABEL_CACHE"] = sys.argv[1] + "/cache"
for check in (check_cache, lambda: check_directory("--output", sys.argv[1] + "/out"),
              lambda: check_file("--page", sys.argv[1] + "/page.html")):
    try:
        check()
        print("fine")
    except (UsageError, OSError) as error:
        print(type(error).__name__, error)
"""


def mounted(tmp_path, options):
    """The result of the checks for a file system mounted with these options."""
    directory = tmp_path / "mounted"
    directory.mkdir()
    words = ["unshare", "--map-root-user", "--mount", "sh", "-c"]
    mount = f"mount -t tmpfs -o {options} tmpfs '{directory}'"
    if (
        not shutil.which("unshare")
        or subprocess.run([*words, mount], capture_output=True, check=False).returncode
    ):
        pytest.skip("needs permission to mount in a namespace")
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    argv = [*words, mount + ' && exec "$@"', "sh", sys.executable, "-c", _PROGRAM, str(directory)]
    done = subprocess.run(argv, capture_output=True, text=True, check=True, env=env)
    return done.stdout.splitlines()


def test_a_read_only_file_system(tmp_path):
    said = mounted(tmp_path, "ro")
    assert len(said) == 3
    for line in said:
        assert line.startswith("UsageError") and "Read-only file system" in line


def test_a_full_file_system(tmp_path):
    cache, *others = mounted(tmp_path, "size=4k")
    assert cache.startswith("OSError") and "No space left" in cache and str(tmp_path) in cache
    assert others == ["fine", "fine"]  # writing the first file will fail
