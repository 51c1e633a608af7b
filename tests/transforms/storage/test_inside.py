"""Names in files are plain names below their directory; a directory is recognized under any path."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from beamlabel.transforms.storage.inside import OutsideError, RealDirectory, below, is_plain, real

PLAIN = [
    "part-20260101T000000Z-abcdef-00000.parquet",
    "_failures/part-1-00000.jsonl",
    "shards/0-1.tfrecord.gz",
    "a=1/b",
]
OTHERS = [
    "", ".", "..", "../victim/precious.txt", "a/../../b", "a/..", "a/./b", "./a", "a//b", "/etc/passwd", "a/", "/",
    "//a", "file:///etc/passwd", "gs://bucket/a", "C:a", "c:/a", "a\\b", "..\\a", "\\\\host\\a", "a\0b", "a\nb",
    "a\x7fb", "a\x85b", "a b", " a", "a ", "a\t", "%2e%2e/a", "..%2fa", "a%00", "~/a", "$HOME/a", "a*", "a?b", "[a]",
    "{a,b}", "a|b", "-rf", ".hidden", "a/.b", "ä", "．．/a", "a\u202eb", "a;b", "a#b", "a:b", "'a'", "x" * 2000,
]  # fmt: skip


@pytest.mark.parametrize("name", PLAIN)
def test_plain_names_are_below(name: str) -> None:
    assert is_plain(name)
    assert below("/out", name) == f"/out/{name}"
    assert below("gs://bucket/out/", name) == f"gs://bucket/out/{name}"


@pytest.mark.parametrize("name", [*OTHERS, None, 1, ["a"], b"a"])
@pytest.mark.parametrize("directory", ["/out", "gs://bucket/out"])
def test_other_names_are_refused(directory: str, name: object) -> None:
    assert not is_plain(name)
    with pytest.raises(OutsideError):
        below(directory, name)


def test_links_may_not_lead_out_of_the_directory(tmp_path: Path) -> None:
    out, victim = tmp_path / "out", tmp_path / "victim"
    (out / "inner").mkdir(parents=True)
    victim.mkdir()
    (victim / "a.txt").write_text("theirs")
    (out / "inner" / "a.txt").write_text("ours")
    links = {
        "directory": victim,
        "file": victim / "a.txt",
        "gone": victim / "gone",
        "up": "..",
        "within": "inner",
    }
    for name, target in links.items():
        (out / name).symlink_to(target)
    (out / "chain").symlink_to("directory")
    for name in ("directory/a.txt", "file", "gone", "up/victim/a.txt", "chain/a.txt", "directory/not/there"):
        with pytest.raises(OutsideError):
            below(str(out), name)
    assert below(str(out), "within/a.txt") == f"{out}/within/a.txt"
    link = tmp_path / "link"
    link.symlink_to(out)  # the directory itself may be one
    assert below(str(link), "inner/a.txt") == f"{link}/inner/a.txt"


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    path = tmp_path / "real" / "out"
    (path / "sub").mkdir(parents=True)
    (tmp_path / "real" / "outer").mkdir()
    return path


def test_a_directory_is_known_by_every_name(
    tmp_path: Path, directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "link").symlink_to(directory)
    (tmp_path / "above").symlink_to(directory.parent)
    (tmp_path / "file").symlink_to(directory / "sub" / "a.txt")
    monkeypatch.chdir(directory)
    names = [
        str(directory), f"{directory}/", f"{tmp_path}/link", f"{tmp_path}/link/", f"{tmp_path}/above/out",
        "/proc/self/cwd", f"/proc/{os.getpid()}/cwd", f"//{directory}", f"{directory}/sub/..",
        f"/proc/self/root{directory}",
    ]  # fmt: skip
    for name in names:
        assert RealDirectory(name).is_same(str(directory)), name
        assert RealDirectory(str(directory)).is_same(name), name
        assert RealDirectory(name).holds(f"{directory}/sub/not/there.txt"), name
        assert RealDirectory(str(directory)).holds(f"{name}/sub/a.txt"), name
        assert real(name) == str(directory), name
    own = RealDirectory(str(directory))
    assert own.holds(f"{tmp_path}/file")
    for other in (
        directory.parent,
        f"{directory}er",
        f"{directory}er/x",
        "/",
        f"gs:/{directory}",
        "gs://bucket/out",
    ):
        assert not own.holds(str(other)), other


def test_a_directory_that_moves_is_known_by_device_and_inode(tmp_path: Path, directory: Path) -> None:
    """As with a bind mount, or with other letter case on a case-insensitive file system."""
    own = RealDirectory(str(directory))
    moved = directory.rename(tmp_path / "elsewhere")
    assert own.is_same(str(moved))
    assert own.holds(f"{moved}/sub/a/b.txt")
    assert not own.holds(f"{tmp_path}/real/outer/x")


def test_a_bind_mount_is_the_directory(tmp_path: Path, directory: Path) -> None:
    mount = tmp_path / "mount"
    mount.mkdir()
    code = (
        "import sys; from beamlabel.transforms.storage.inside import RealDirectory as F\n"
        "print(F(sys.argv[1]).is_same(sys.argv[2]), F(sys.argv[1]).holds(sys.argv[2] + '/sub/a'))"
    )
    script = f'mount --bind "$1" "$2" && exec {sys.executable} -c "$3" "$1" "$2"'
    arguments = ["unshare", "--mount", "--map-root-user", "sh", "-c", script, "sh", directory, mount, code]
    try:
        done = subprocess.run(arguments, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        pytest.skip("needs unshare")
    if done.returncode:
        pytest.skip(f"needs permission to mount: {done.stderr}")
    assert done.stdout.split() == ["True", "True"]


def test_objects_of_doubled_slashes_are_inside(tmp_path: Path) -> None:
    own = RealDirectory("gs://bucket/out/")
    for path in (
        "gs://bucket/out",
        "gs://bucket/out/a",
        "GS://bucket/out//a",
        "gs://bucket//out/a",
        "gs://bucket/out//",
    ):
        assert own.holds(path), path
    for path in (
        "gs://bucket/outer",
        "gs://bucket",
        "gs://other/out/a",
        "s3://bucket/out/a",
        "/bucket/out/a",
    ):
        assert not own.holds(path), path
    assert own.is_same("gs://bucket//out")
    assert not own.is_same("gs://bucket/out/a")
