"""`fetch` of local files and through Beam's file systems; `gs://` has its own test file."""

import os
import pickle
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from apache_beam.io.filesystem import BeamIOError
from apache_beam.io.localfilesystem import LocalFileSystem

from beamlabel.transforms.loading.fetch import Fetched, FetchOptions, fetch
from beamlabel.transforms.records import ImageError, Reason
from support import http_site
from support.servers import FileServer, Reply

OPTIONS = FetchOptions(max_bytes=1000, deadline=10.0)


def refusal(location: object, options: FetchOptions = OPTIONS) -> ImageError:
    return http_site.refusal(fetch, str(location), options)


@pytest.mark.parametrize("name", ["a.jpg", "ü 漢 b#c%20d:e?.jpg", "-", "a\nb", os.fsdecode(b"\xff.jpg")])
def test_a_local_file(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.write_bytes(b"image")
    os.utime(path, ns=(1, 1_234_567_890_123_456_789))
    assert fetch(str(path), OPTIONS) == Fetched(b"image", "1234567890123456789")


def test_a_link_is_followed(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"image")
    (tmp_path / "link").symlink_to("a")
    assert fetch(str(tmp_path / "link"), OPTIONS).data == b"image"


@pytest.mark.parametrize("size", [1, 999, 1000])
def test_the_cap_is_exact(tmp_path: Path, size: int) -> None:
    path = tmp_path / "a"
    path.write_bytes(bytes(size))
    assert len(fetch(str(path), FetchOptions(max_bytes=size)).data) == size
    path.write_bytes(bytes(size + 1))
    error = refusal(path, FetchOptions(max_bytes=size))
    assert error.reason is Reason.TOO_MANY_BYTES
    assert error.detail == f"{size + 1} bytes, more than --max_bytes {size}"


def test_a_huge_file_is_refused_unread(tmp_path: Path) -> None:
    """A sparse terabyte: reading it would fail for another reason or never end."""
    with (tmp_path / "a").open("wb") as file:
        file.truncate(1 << 40)
    assert refusal(tmp_path / "a", FetchOptions(max_bytes=1 << 39)).reason is Reason.TOO_MANY_BYTES


@pytest.mark.skipif(
    not Path("/proc/cpuinfo").is_file(), reason="needs Linux for a regular file of unknown size"
)
def test_pseudo_files_of_the_kernel_are_no_files() -> None:
    path = Path("/proc/cpuinfo")
    assert path.is_file()
    assert refusal(path, FetchOptions(max_bytes=1 << 30)).reason is Reason.NOT_A_FILE


SCHEMES_REFUSED = {
    ("gs", "https"): [
        "/a.jpg",
        "s3://b/a.jpg",
        "http://host/a.jpg",
        "HTTP://host/a.jpg",
        "hdfs://a/b",
        "file://h/a",
    ],
    ("file",): ["gs://b/a.jpg", "GS://b/a.jpg", "https://host/a.jpg"],
}


@pytest.mark.parametrize("allowed", SCHEMES_REFUSED)
def test_schemes_that_are_not_allowed(tmp_path: Path, allowed: tuple[str, ...]) -> None:
    options = FetchOptions(allow_http=True, allowed_schemes=allowed)
    for location in SCHEMES_REFUSED[allowed]:
        error = refusal(location, options)
        assert error.reason is Reason.SCHEME_NOT_ALLOWED, location
        assert "--allowed_schemes" in error.detail
    (tmp_path / "a").write_bytes(b"image")
    if allowed == ("file",):
        assert fetch(str(tmp_path / "a"), options).data == b"image"
    else:
        assert "image" not in refusal(tmp_path / "a", options).detail


@pytest.mark.parametrize("schemes", [(), ("",), ("GS",), ("gs://",), ("a b",), "gs", ["gs"], (3,)])
def test_texts_that_are_no_schemes(schemes: Any) -> None:
    with pytest.raises(ValueError, match="allowed_schemes"):
        FetchOptions(allowed_schemes=schemes)


def test_a_redirect_to_a_scheme_that_is_not_allowed(http_server: FileServer) -> None:
    http_server.files["/b.jpg"] = b"image"
    only = FetchOptions(allow_http=True, allow_private_hosts=True, allowed_schemes=("http", "gs"))
    for target in ("https://127.0.0.1/b.jpg", "ftp://127.0.0.1/b.jpg", "file:///etc/passwd", "s3://b/a"):
        http_server.files["/a.jpg"] = Reply(status=302, headers={"Location": target})
        assert refusal(http_server.url_of("/a.jpg"), only).reason is Reason.SCHEME_NOT_ALLOWED, target
    http_server.files["/a.jpg"] = Reply(status=302, headers={"Location": http_server.url_of("/b.jpg")})
    assert fetch(http_server.url_of("/a.jpg"), only).data == b"image"


def test_an_empty_file(tmp_path: Path) -> None:
    (tmp_path / "a").touch()
    assert refusal(tmp_path / "a").reason is Reason.EMPTY_FILE


def test_what_is_not_there(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "dangling").symlink_to("nowhere")
    (tmp_path / "loop").symlink_to("loop")
    for name in ("a", "file/a", "dangling", "loop", "x" * 300, "x/" * 5000, "nul\0", "\ud800"):
        assert refusal(tmp_path / name).reason is Reason.NOT_FOUND, name
    assert refusal("").reason is Reason.NOT_FOUND


def test_what_is_not_a_file(tmp_path: Path) -> None:
    """None of them may block: a FIFO without a writer would block forever, and /dev/zero has no end."""
    os.mkfifo(tmp_path / "fifo")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(os.fspath(tmp_path / "s"))
        for path in (tmp_path, tmp_path / "fifo", tmp_path / "s", "/dev/zero", "/dev/null"):
            assert refusal(path).reason is Reason.NOT_A_FILE, path
    assert refusal(tmp_path).detail == "a directory"


@pytest.fixture
def shared_directory() -> Iterator[Path]:
    """A directory that every user may enter, unlike ``tmp_path``."""
    directory = Path(tempfile.mkdtemp())
    directory.chmod(0o755)
    yield directory
    shutil.rmtree(directory)


def test_an_unreadable_file(shared_directory: Path) -> None:
    for name, mode in (("open", 0o644), ("closed", 0)):
        (shared_directory / name).write_bytes(b"image")
        (shared_directory / name).chmod(mode)
    root = os.geteuid() == 0  # root ignores file modes
    try:
        if root:
            os.seteuid(65534)
        assert fetch(str(shared_directory / "open"), OPTIONS).data == b"image"
        error = refusal(shared_directory / "closed")
    finally:
        if root:
            os.seteuid(0)
    assert error.reason is Reason.FORBIDDEN


def test_http_is_fetched_if_allowed(http_server: FileServer) -> None:
    http_server.files["/ü b.jpg"] = Reply(body=b"image", headers={"ETag": '"1"'})
    url = http_server.url_of("/ü b.jpg")
    refused = refusal(url)
    assert refused.reason is Reason.NOT_ALLOWED
    assert "--allow_http" in refused.detail
    private = refusal(url, FetchOptions(allow_http=True))
    assert private.reason is Reason.NOT_ALLOWED
    assert "--allow_private_hosts" in private.detail
    assert not http_server.requests
    allowed = FetchOptions(max_bytes=5, allow_http=True, allow_private_hosts=True)
    assert fetch(url, allowed) == Fetched(b"image", '"1"')
    assert fetch(url.replace("http", "HTTP"), allowed).data == b"image"
    http_server.files["/large.jpg"] = b"images"
    assert refusal(http_server.url_of("/large.jpg"), allowed).reason is Reason.TOO_MANY_BYTES
    http_server.files["/empty.jpg"] = b""
    assert refusal(http_server.url_of("/empty.jpg"), allowed).reason is Reason.EMPTY_FILE
    http_server.files["/slow.jpg"] = Reply(body=b"image", delay=1.0)
    brief = FetchOptions(deadline=0.2, allow_http=True, allow_private_hosts=True)
    assert refusal(http_server.url_of("/slow.jpg"), brief).reason is Reason.TIMEOUT


@pytest.mark.parametrize("status", [404, 403, 400, 503])
def test_details_hold_no_signature(http_server: FileServer, status: int) -> None:
    http_server.files["/a.jpg"] = Reply(status=status)
    options = FetchOptions(deadline=0.5, allow_http=True, allow_private_hosts=True)
    for url in (http_server.url_of("/a.jpg"), "http://[bad/a.jpg", "http://127.0.0.1:1/a.jpg", "http://a b/"):
        assert "s3cret" not in refusal(f"{url}?X-Goog-Signature=s3cret", options).detail


@pytest.mark.parametrize("uri", ["nonsense://a/b.jpg", "s4://bucket/a?sig=s3cret", "file://server/a.jpg"])
def test_an_unknown_scheme(uri: str) -> None:
    error = refusal(uri)
    assert error.reason is Reason.UNSUPPORTED_SCHEME
    assert uri.partition(":")[0] in error.detail
    assert "s3cret" not in error.detail


class TwinFileSystem(LocalFileSystem):
    """Local files under another scheme; Beam finds every subclass of its ``FileSystem``."""

    @classmethod
    def scheme(cls) -> str:
        return "twin"

    def open(self, path: str, *args: Any, **kwargs: Any) -> Any:
        path = path.removeprefix("twin://")
        if path.endswith("broken"):
            raise BeamIOError("no luck", {"twin://" + path: OSError("on fire")})
        return super().open(path, *args, **kwargs)

    def exists(self, path: str) -> bool:
        if path.endswith("broken"):
            raise PermissionError("may not look")
        return super().exists(path.removeprefix("twin://"))


def test_a_scheme_that_beam_knows(tmp_path: Path) -> None:
    (tmp_path / "a.gz").write_bytes(b"image")  # would be decompressed by its name
    assert fetch(f"twin://{tmp_path}/a.gz", OPTIONS) == Fetched(b"image", None)
    (tmp_path / "large").write_bytes(bytes(1001))
    assert refusal(f"twin://{tmp_path}/large").reason is Reason.TOO_MANY_BYTES
    (tmp_path / "empty").touch()
    assert refusal(f"twin://{tmp_path}/empty").reason is Reason.EMPTY_FILE
    assert refusal(f"twin://{tmp_path}/missing").reason is Reason.NOT_FOUND
    assert refusal(f"twin://{tmp_path}").reason is Reason.FETCH_ERROR, "a directory, to this file system"
    broken = refusal(f"twin://{tmp_path}/broken")
    assert broken.reason is Reason.FETCH_ERROR
    assert "on fire" in broken.detail


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *(("max_bytes", value) for value in (0, -1, 1.5, "1", None, True)),
        *(("deadline", value) for value in (0, -1, float("inf"), float("nan"), "1", None, True)),
        *((name, value) for name in ("allow_http", "allow_private_hosts") for value in (1, "no", None)),
    ],
)
def test_options_are_checked(name: str, value: object) -> None:
    with pytest.raises(ValueError, match=rf"^{name} must be .*, not {value!r}$"):
        FetchOptions(**{name: value})


def test_options_travel_to_workers() -> None:
    options = FetchOptions(max_bytes=1, deadline=2, allow_http=True)
    assert pickle.loads(pickle.dumps(options)) == options


def test_local_files_need_no_client_library(tmp_path: Path) -> None:
    """Workers import only the libraries that the job uses."""
    (tmp_path / "a").write_bytes(b"image")
    code = (
        "import sys; from beamlabel.transforms.loading.fetch import *; fetch(sys.argv[1], FetchOptions());"
        "print({'apache_beam', 'google.cloud.storage', 'urllib3', 'tensorflow'} & {*sys.modules})"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "a")]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip() == "set()"
