"""``storage`` on local files, beyond the contract: links, locked directories, other file systems, leftovers."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from beamlabel.transforms import storage
from support.places import LocalDirectory


@pytest.fixture
def directory(tmp_path: Path) -> LocalDirectory:
    (tmp_path / "directory").mkdir()
    return LocalDirectory(tmp_path / "directory")


def test_local_files_need_neither_beam_nor_google(tmp_path: Path) -> None:
    program = (
        "import sys; before = set(sys.modules); from beamlabel.transforms import storage; path = sys.argv[1];"
        "storage.write_bytes(path + '/a', b'x'); storage.move(path + '/a', path + '/b');"
        "assert [f.path for f in storage.match(path + '/*')] == [path + '/b'];"
        "assert storage.create_if_absent(path + '/c', b'') and storage.read_bytes(path + '/b') == b'x';"
        "storage.delete_tree(path);"
        "print([m for m in set(sys.modules) - before if m.startswith(('apache_beam', 'google.'))])"
    )
    run = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path)], capture_output=True, text=True, check=True
    )
    assert run.stdout.strip() == "[]"


# --- names ---


def test_a_name_that_is_not_unicode(tmp_path: Path) -> None:
    path = os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9.jpg")
    Path(path).write_bytes(b"x")
    assert [file.path for file in storage.match(f"{tmp_path}/*")] == [path]
    assert storage.read_bytes(path) == b"x"
    assert storage.absolute(Path(path).as_uri()) == path


@pytest.mark.parametrize("name", ["file/below", "a\0b", "x" * 300])
def test_what_can_not_be_there(directory: LocalDirectory, name: str) -> None:
    path = directory.uri(name)
    directory.put("file", b"")
    assert not storage.exists(path)
    for function in (storage.stat, storage.open_input, storage.read_bytes):
        with pytest.raises(FileNotFoundError) as caught:
            function(path)
        assert caught.value.filename == path


def test_paths_below_a_file_count_as_deleted(directory: LocalDirectory) -> None:
    directory.put("file", b"")
    storage.delete(directory.uri("file/a"))
    storage.delete_tree(directory.uri("file/a"))
    assert directory.list() == ["file"]


def test_a_directory_is_not_a_file(directory: LocalDirectory) -> None:
    directory.put("a/b", b"")
    assert not storage.exists(directory.uri("a"))
    for function in (storage.stat, storage.open_input, storage.read_bytes):
        with pytest.raises(IsADirectoryError, match="a'"):
            function(directory.uri("a"))


def test_a_directory_means_all_below(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("in[1]/b/2", "in[1]/a", "in1/c"):
        storage.write_bytes(str(tmp_path / name), b"")
    expected = [f"{tmp_path}/in[1]/a", f"{tmp_path}/in[1]/b/2"]
    monkeypatch.chdir(tmp_path)
    for pattern in (f"{tmp_path}/in[1]", (tmp_path / "in[1]").as_uri(), "in[1]", "./in[1]/"):
        assert [file.path for file in storage.match(pattern)] == expected


def test_dots_lead_to_the_directory_above(directory: LocalDirectory) -> None:
    for name in ("a/1.jpg", "a/b/2.jpg"):
        directory.put(name, b"")
    assert [file.path for file in storage.match(directory.uri("a/b/../*.jpg"))] == [directory.uri("a/1.jpg")]


# --- versions ---


def test_the_version_is_the_time_of_the_last_change(directory: LocalDirectory) -> None:
    path = directory.put("a", b"1")
    os.utime(path, ns=(0, 1_700_000_000_123_456_789))
    assert storage.stat(path).version == "1700000000123456789"


# --- writing ---


def test_readers_of_the_old_file_are_not_disturbed(directory: LocalDirectory) -> None:
    path = directory.put("a", b"old")
    with storage.open_input(path) as reader:
        storage.write_bytes(path, b"new")
        assert reader.read() == b"old"


def test_a_written_file_can_be_read_by_others(tmp_path: Path) -> None:
    (tmp_path / "plain").write_bytes(b"")
    storage.write_bytes(str(tmp_path / "written"), b"")
    storage.create_if_absent(str(tmp_path / "created"), b"")
    assert {p.stat().st_mode for p in tmp_path.iterdir()} == {(tmp_path / "plain").stat().st_mode}


def test_a_failed_write_leaves_nothing(directory: LocalDirectory) -> None:
    (directory.directory / "directory/inside").mkdir(parents=True)
    with pytest.raises(IsADirectoryError) as caught:
        storage.write_bytes(directory.uri("directory"), b"x")
    assert caught.value.filename == directory.uri("directory")
    assert not storage.create_if_absent(directory.uri("directory"), b"x")
    assert directory.list() == []


def test_one_of_many_creates_without_hard_links(
    directory: LocalDirectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A file system without hard links is not available here.
    def refuse(*_: object, **__: object) -> None:
        raise OSError(errno.ENOTSUP, "no hard links")

    monkeypatch.setattr(os, "link", refuse)
    start = threading.Barrier(16)

    def create(i: int) -> bool:
        start.wait()
        return storage.create_if_absent(directory.uri("units/1.json"), b"%d" % i)

    with ThreadPoolExecutor(16) as threads:
        won = [i for i, mine in enumerate(threads.map(create, range(16))) if mine]
    assert len(won) == 1
    assert directory.get("units/1.json") == b"%d" % won[0]
    assert directory.list() == ["units/1.json"]


def test_a_create_whose_answer_was_lost(directory: LocalDirectory, monkeypatch: pytest.MonkeyPatch) -> None:
    # Like NFS, which repeats requests; it is not available here.
    link = os.link

    def link_twice(*arguments: object, **options: object) -> None:
        link(*arguments, **options)  # type: ignore[arg-type]
        link(*arguments, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(os, "link", link_twice)
    assert storage.create_if_absent(directory.uri("a"), b"x")
    assert not storage.create_if_absent(directory.uri("a"), b"x")
    assert directory.get("a") == b"x"
    (directory.directory / "link").symlink_to("nowhere")
    assert not storage.create_if_absent(directory.uri("link"), b"x")
    assert directory.list() == ["a", "link"]


def test_put_file_from_another_file_system(tmp_path: Path) -> None:
    shm = Path("/dev/shm")
    if not (shm.is_dir() and os.access(shm, os.W_OK)) or shm.stat().st_dev == tmp_path.stat().st_dev:
        pytest.skip("no second file system on this machine")
    source = shm / f"storage-test-{os.getpid()}"
    source.write_bytes(b"x" * 100_000)
    directory = LocalDirectory(tmp_path)
    storage.put_file(str(source), directory.uri("out/part"))
    assert not source.exists()
    assert directory.get("out/part") == b"x" * 100_000
    assert directory.list() == ["out/part"]


def test_leftovers_of_killed_writers_are_deleted(directory: LocalDirectory) -> None:
    left = [f"a/.tmp-{'0f' * 16}", f"a/b/.tmp-{'0f' * 16}", "a/.tmp-mine", "a/kept"]
    for name in left:
        directory.put(name, b"")
    storage.delete_temporary(directory.uri("a"))
    storage.delete_temporary(directory.uri("missing"))
    assert directory.list() == sorted(left[1:])


def test_a_directory_moves_only_to_a_free_place(directory: LocalDirectory) -> None:
    for name in ("a/1", "a/b/2", "taken/3"):
        directory.put(name, b"")
    with pytest.raises(FileExistsError) as caught:
        storage.move_directory(directory.uri("a"), directory.uri("taken"))
    assert caught.value.filename == directory.uri("taken")
    with pytest.raises(FileNotFoundError):
        storage.move_directory(directory.uri("missing"), directory.uri("new"))
    storage.move_directory(directory.uri("a"), directory.uri("new"))
    assert directory.list() == ["new/1", "new/b/2", "taken/3"]


def test_a_deleted_tree_leaves_no_directory(directory: LocalDirectory) -> None:
    for name in ("a/1", "a/b/2", "ab/3"):
        directory.put(name, b"")
    storage.delete_tree(directory.uri("a") + "/")
    assert [path.name for path in directory.directory.iterdir()] == ["ab"]


# --- listing ---


def test_links(tmp_path: Path) -> None:
    (tmp_path / "t/a").mkdir(parents=True)
    (tmp_path / "far").mkdir()
    (tmp_path / "far/1.jpg").write_bytes(b"x")
    (tmp_path / "t/b").symlink_to(tmp_path / "far")
    (tmp_path / "t/c").symlink_to(tmp_path / "far")
    (tmp_path / "t/a/loop").symlink_to(tmp_path / "t")
    (tmp_path / "far/back").symlink_to(".")
    (tmp_path / "t/gone.jpg").symlink_to("nothing")
    (tmp_path / "t/self.jpg").symlink_to("self.jpg")
    os.mkfifo(tmp_path / "t/pipe.jpg")
    found = {file.path.removeprefix(f"{tmp_path}/t/"): file.size for file in storage.match(f"{tmp_path}/t/")}
    # Pipes would block their reader. Dangling links are listed, since a failure is better than silence.
    assert found == {"b/1.jpg": 1, "c/1.jpg": 1, "gone.jpg": None, "self.jpg": None}
    assert [file.path for file in storage.match(f"{tmp_path}/t/*.jpg")] == [
        f"{tmp_path}/t/gone.jpg",
        f"{tmp_path}/t/self.jpg",
    ]
    assert [file.path for file in storage.match(f"{tmp_path}/t/*/1.jpg")] == [
        f"{tmp_path}/t/b/1.jpg",
        f"{tmp_path}/t/c/1.jpg",
    ]


def test_a_tree_is_listed_directory_by_directory(tmp_path: Path) -> None:
    for name in ("a/1", "b/2", "c/3"):
        storage.write_bytes(str(tmp_path / name), b"")
    listing = storage.match(f"{tmp_path}/")
    assert next(listing).path.endswith("a/1")
    storage.write_bytes(str(tmp_path / "b/new"), b"")  # not read yet, so it appears
    assert [Path(file.path).name for file in listing] == ["2", "new", "3"]


@pytest.fixture
def locked(open_directory: Path) -> Path:
    """A tree with an unreadable directory."""
    storage.write_bytes(str(open_directory / "a.jpg"), b"")
    storage.write_bytes(str(open_directory / "locked/b.jpg"), b"")
    (open_directory / "locked").chmod(0)
    return open_directory


@pytest.mark.parametrize(
    "read",
    [
        lambda directory: list(storage.match(f"{directory}/")),
        lambda directory: list(storage.match(f"{directory}/locked/*.jpg")),
        lambda directory: list(storage.match(f"{directory}/**.jpg")),
        lambda directory: storage.read_bytes(f"{directory}/locked/b.jpg"),
        lambda directory: storage.exists(f"{directory}/locked/b.jpg"),
    ],
)
def test_a_locked_directory_is_reported(
    locked: Path, as_nobody: None, read: Callable[[Path], object]
) -> None:
    with pytest.raises(PermissionError, match="locked"):
        read(locked)


def test_a_locked_directory_that_is_not_asked_for(locked: Path, as_nobody: None) -> None:
    assert [file.path for file in storage.match(f"{locked}/*.jpg")] == [f"{locked}/a.jpg"]
