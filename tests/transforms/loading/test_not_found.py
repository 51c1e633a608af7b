"""Missing references: errors call malformed ones malformed, and show the location tried for others."""

from __future__ import annotations

import base64
import contextlib
from pathlib import Path

import pytest

from beamlabel.transforms.decoding.decode import DecodeOptions
from beamlabel.transforms.elements.references import ElementOptions, reference
from beamlabel.transforms.loading.fetch import FetchOptions
from beamlabel.transforms.loading.load_images import load_one
from beamlabel.transforms.loading.load_options import LoadOptions
from beamlabel.transforms.records import Failure, LoadedImage, Reason
from support.jobs import photos
from support.servers import FileServer

URL = "http://example.com/a.jpg"


def load(uri: str, base_dir: object, **fetch: bool) -> LoadedImage | Failure:
    options = LoadOptions(FetchOptions(**fetch), DecodeOptions(height=32, width=32))
    return load_one(reference(uri, ElementOptions(base_dir=str(base_dir))), options)


def failed(uri: str, base_dir: object, **fetch: bool) -> Failure:
    found = load(uri, base_dir, **fetch)
    assert isinstance(found, Failure)
    assert len(found.detail) < 2000 and "\n" not in found.detail
    return found


@pytest.mark.parametrize(
    "uri",
    [
        f'"{URL}"', f"'{URL}'", f"<{URL}>", f"“{URL}”", f'"{URL}', f" {URL}", f"\t{URL}", f"({URL})", f"[{URL}]",
        f"1,{URL}", f"![]({URL})", f'{{"url": "{URL}"}}', f"url={URL}", f"\ufeff{URL}", f"\u200b{URL}", f"\u00a0{URL}",
        '"a.jpg"', "'a.jpg'", "<a.jpg>", "a.jpg ", "  a.jpg", "\ufeffa.jpg", "a\u200b.jpg", "a\u00ad.jpg", "a\0.jpg",
        "a\x1b[0m.jpg", "a\u2028.jpg", "b\ufffd.jpg", "   ", "http:/example.com/a.jpg", "http:example.com/a.jpg",
        "s3:bucket/a.jpg", "file:a.jpg", "C:\\photos\\a.jpg", "C:/photos/a.jpg", "\\\\server\\share\\a.jpg",
        "photos\\a.jpg", "sub/photos\\a.jpg", "//example.com/a.jpg", "www.example.com/a.jpg", "gs:///a.jpg",
    ],
)  # fmt: skip
def test_a_malformed_text_says_so(tmp_path: Path, uri: str) -> None:
    found = failed(uri, tmp_path)
    assert found.reason is Reason.INVALID_URI
    assert found.uri == uri


@pytest.mark.parametrize(
    "uri", ["mailto:a@example.com", "blob:abc", "data:,", "javascript:void(0)", "urn:x:1"]
)
def test_a_scheme_of_no_image(tmp_path: Path, uri: str) -> None:
    assert failed(uri, tmp_path).reason is Reason.UNSUPPORTED_SCHEME


@pytest.mark.parametrize("before", ["", " ", '"', "<"])
@pytest.mark.parametrize(
    "head", ["data:image/png;base64,", "DATA:image/svg+xml;charset=utf-8,", "data:;base64,"]
)
def test_data_uris_are_not_read_and_not_written(tmp_path: Path, before: str, head: str) -> None:
    text = before + head + base64.b64encode(bytes(40_000)).decode()
    found = failed(text, tmp_path)
    assert found.reason is Reason.UNSUPPORTED_SCHEME
    assert "--image_column" in found.detail
    for written in (found.uri, found.ref_id):
        assert written is not None and len(written) < 300 and written.startswith(before + head)
    other = failed(text[:-8] + "AAAABBBB", tmp_path)
    assert other.uri != found.uri, "two images are distinguished"


@pytest.mark.parametrize(
    "name",
    [
        '"a".png',
        "'b'",
        " c.png",
        "d.png ",
        "C:\\e.png",
        "www.f.png",
        "g%20h.png",
        "mailto:i",
        "a\u200b.png",
        "(j)",
    ],
)
def test_a_file_of_an_odd_name_is_loaded(tmp_path: Path, name: str) -> None:
    (path,) = photos(tmp_path / "from", 1)
    path.rename(tmp_path / name)
    assert isinstance(load(name, tmp_path), LoadedImage)


@pytest.mark.parametrize(
    "name",
    [
        "a.jpg", "(1).jpg", "[a].jpg", "12:30.jpg", "IMG-12:30.jpg", "a b.jpg", "e\u0301.jpg", "50%.jpg", "a%20b.jpg",
        "\U0001f468\u200d\U0001f469.jpg",
    ],
)  # fmt: skip
def test_what_may_be_a_name_is_not_found_where_it_was_looked_for(tmp_path: Path, name: str) -> None:
    found = failed(name, tmp_path)
    assert found.reason is Reason.NOT_FOUND
    assert str(tmp_path / name) in found.detail
    assert f"base directory {tmp_path})" in found.detail
    absolute = failed(str(tmp_path / name), "/elsewhere")
    assert absolute.reason is Reason.NOT_FOUND
    assert str(tmp_path / name) in absolute.detail and "base directory" not in absolute.detail


def test_a_percent_encoded_name_of_a_file_that_is_there(tmp_path: Path) -> None:
    (path,) = photos(tmp_path, 1)
    name = path.name.replace(" ", "%20")
    assert name != path.name
    assert failed(name, tmp_path).reason is Reason.INVALID_URI
    assert failed(str(tmp_path / name), "/").reason is Reason.INVALID_URI
    for uri in (f"file://{tmp_path}/{name}", f"file:{tmp_path}/{name}", f"FILE://localhost{tmp_path}/{name}"):
        assert isinstance(load(uri, "/"), LoadedImage)


@pytest.mark.parametrize("uri", ["./a.jpg", "././a.jpg", "x/../a.jpg"])
def test_a_relative_name_with_dots(tmp_path: Path, uri: str) -> None:
    found = failed(uri, tmp_path)
    assert f"base directory {tmp_path})" in found.detail


def test_a_long_name_is_cut(tmp_path: Path) -> None:
    found = failed("x" * 60_000, tmp_path)
    assert found.reason is Reason.NOT_FOUND
    assert "60" in found.detail and len(found.detail) < 1000


def test_an_address_shows_no_credentials(tmp_path: Path) -> None:
    (path,) = photos(tmp_path, 1)
    with contextlib.closing(FileServer()) as server:
        server.files["/a.png"] = path.read_bytes()
        host = server.url.removeprefix("http://")
        allowed = {"allow_http": True, "allow_private_hosts": True}
        assert isinstance(load(f"HTTP://{host}/a.png", "/", **allowed), LoadedImage)
        gone = failed(f"http://me:secret@{host}/gone.png?id=1&token=secret", "/", **allowed)
        assert gone.reason is Reason.NOT_FOUND
        assert f"http://{host}/gone.png?id=1" in gone.detail
        assert "secret" not in gone.detail
        for odd in (f"http://{host}/a.png ", f'http://{host}/a.png"', f"http://{host}/a\u200b.png"):
            assert failed(odd, "/", **allowed).reason is Reason.INVALID_URI
