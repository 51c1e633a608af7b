"""Paths that are not regular files are not opened as input, listing or image."""

import os
import socket
import stat as stat_module
import threading
from pathlib import Path

import pytest

from beamlabel.pipeline.errors import UsageError
from beamlabel.pipeline.job.match_inputs import match_inputs
from beamlabel.pipeline.options.parser import parse
from beamlabel.transforms import storage
from beamlabel.transforms.inputs.sources.listing import listed
from beamlabel.transforms.inputs.sources.path_filter import PathFilter
from beamlabel.transforms.loading.fetch import FetchOptions, fetch
from beamlabel.transforms.records import ImageError, Reason
from beamlabel.transforms.storage.disk import regular_file
from beamlabel.transforms.storage.errors import NotAFileError

linux = pytest.mark.skipif(not Path("/proc/self/mountinfo").exists(), reason="needs Linux's /proc")


@pytest.fixture
def others(tmp_path):
    """Paths by name that do not lead to a regular file."""
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "link").symlink_to("pipe")
    (tmp_path / "link to link").symlink_to("link")
    (tmp_path / "null").symlink_to("/dev/null")
    (tmp_path / "zero.jpg").symlink_to("/dev/zero")
    paths = ["pipe", "link", "link to link", "null", "zero.jpg"]
    listening = socket.socket(socket.AF_UNIX)
    listening.bind(str(tmp_path / "s"))
    found = [str(tmp_path / name) for name in (*paths, "s")] + ["/dev/zero", "/dev/tty", f"{tmp_path}/./pipe"]
    if Path("/proc/self/environ").exists():
        (tmp_path / "environ.txt").symlink_to("/proc/self/environ")
        (tmp_path / "kernel").symlink_to("/proc/sys/kernel")
        found += [
            "/proc/self/environ", "/proc/../proc/cpuinfo", "//proc/meminfo", str(tmp_path / "environ.txt"),
            str(tmp_path / "kernel" / "hostname"), "/sys/kernel/uevent_seqnum", "/proc/self/root/proc/cpuinfo",
        ]  # fmt: skip
    yield [path for path in found if Path(path).exists()]
    listening.close()


def test_they_are_no_images(others):
    for path in others:
        with pytest.raises(ImageError) as caught:
            fetch(path, FetchOptions())
        assert caught.value.reason is Reason.NOT_A_FILE, path


def test_they_are_no_inputs_and_are_not_opened(others, monkeypatch, tmp_path):
    opened = []
    real = os.open
    monkeypatch.setattr(
        os, "open", lambda path, *args, **kw: opened.append(str(path)) or real(path, *args, **kw)
    )
    for path in others:
        for read in (storage.open_input, storage.read_bytes, storage.stat):
            with pytest.raises(NotAFileError):
                read(path)
        with pytest.raises(NotAFileError):
            storage.read_part(path, 0, 1)
        options = parse(["--input", path, "--module", "m", "--output", str(tmp_path / "out")])[0].inputs
        with pytest.raises(UsageError, match="--input"):
            match_inputs(options, str(tmp_path / "out"))
    assert not set(opened) & set(others)


@linux
def test_files_that_this_process_has_open_are_not_had_by_their_number(tmp_path):
    path = tmp_path / "own.txt"
    path.write_bytes(b"own")
    with path.open("rb") as file:
        number = file.fileno()
        names = (f"/proc/self/fd/{number}", f"/dev/fd/{number}", f"/proc/{os.getpid()}/fd/{number}")
        for name in names:
            for place in (name, f"{tmp_path}/../../../../../../../..{name}", f"//{name}", f"/.{name}"):
                assert Path(place).read_bytes() == b"own"
                with pytest.raises(ImageError) as caught:
                    fetch(place, FetchOptions())
                assert caught.value.reason is Reason.NOT_A_FILE, place
                with pytest.raises(NotAFileError):
                    storage.open_input(place)


@linux
def test_links_to_open_files_are_not_followed(tmp_path):
    """A link, a link to it, a link to their directory, and a relative one, which goes back from a link with ``..``."""
    own = tmp_path / "own.txt"
    own.write_bytes(b"own")
    (tmp_path / "open").symlink_to("/dev/fd")
    (tmp_path / "here").symlink_to(tmp_path)
    (tmp_path / "ordinary").symlink_to("here/own.txt")
    with own.open("rb") as file:
        (tmp_path / "a.jpg").symlink_to(f"/proc/self/fd/{file.fileno()}")
        (tmp_path / "b.jpg").symlink_to("here/a.jpg")
        (tmp_path / "c.jpg").symlink_to(f"open/../fd/{file.fileno()}")
        for name in ("a.jpg", "b.jpg", "c.jpg", f"open/{file.fileno()}", f"here/open/{file.fileno()}"):
            assert (tmp_path / name).read_bytes() == b"own", name
            with pytest.raises(ImageError) as caught:
                fetch(str(tmp_path / name), FetchOptions())
            assert caught.value.reason is Reason.NOT_A_FILE, name
        assert fetch(str(tmp_path / "ordinary"), FetchOptions()).data == b"own"


@linux
@pytest.mark.parametrize("directory", ["/proc/", "/proc/sys/", "/sys/kernel/*", "/proc/self/**"])
def test_directories_of_the_kernel_are_refused(directory):
    with pytest.raises(NotAFileError):
        next(storage.match(directory))


@linux
def test_a_listing_leaves_out_targets_of_links(tmp_path, others):
    (tmp_path / "a.jpg").write_bytes(b"image")
    found = [place.uri for place in listed(f"{tmp_path}/", PathFilter()) if hasattr(place, "uri")]
    assert found == [str(tmp_path / "a.jpg")]


def test_a_file_that_becomes_a_pipe_is_not_waited_for(tmp_path, monkeypatch):
    """A pipe without a writer takes the place of the file between check and opening."""
    path = tmp_path / "a.jpg"
    path.write_bytes(b"image")
    real = os.stat

    def stat(given, *args, **options):
        status = real(given, *args, **options)
        if str(given) == str(path) and stat_module.S_ISREG(status.st_mode):
            path.unlink()
            os.mkfifo(path)
        return status

    found = []

    def read():
        try:
            fetch(str(path), FetchOptions())
        except ImageError as error:
            found.append(error.reason)

    monkeypatch.setattr(os, "stat", stat)
    thread = threading.Thread(target=read, daemon=True)
    thread.start()
    thread.join(30)
    assert found == [Reason.NOT_A_FILE]


def test_ordinary_files_of_any_kind_are_files(tmp_path):
    (tmp_path / "a").write_bytes(b"image")
    (tmp_path / "link").symlink_to("a")
    (tmp_path / "hard").hardlink_to(tmp_path / "a")
    for name in ("a", "link", "hard"):
        with storage.open_input(str(tmp_path / name)) as file:
            assert file.read() == b"image"
        assert fetch(str(tmp_path / name), FetchOptions()).data == b"image"
        assert storage.read_part(str(tmp_path / name), 1, 2) == b"ma"


@linux
def test_mounts_are_known_by_their_type():
    assert regular_file.is_of_kernel(Path("/proc").stat().st_dev)
    assert not regular_file.is_of_kernel(Path(__file__).stat().st_dev)
    assert regular_file.kind_of_other("/dev/shm/a", Path(__file__).stat()) is None
