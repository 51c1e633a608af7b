"""Hostile tarballs: damaged ones, bombs, and members that are not files."""

import gzip
import io
import random
import tarfile
import zlib

import pytest

from beamlabel.transforms.hub import tarball
from beamlabel.transforms.hub.files import fingerprint, scan
from beamlabel.transforms.hub.resolve import resolve_module
from beamlabel.transforms.hub.tarball import extract_tar
from beamlabel.transforms.inference.artifact import ModuleError
from support.paths import DATA

TINY = DATA / "tiny_classification_1.tar.gz"


def tar_of(*members, end=True):
    """A tarball of pairs: a ``TarInfo`` or a name, and bytes."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for info, data in members:
            one = tarfile.TarInfo(info) if isinstance(info, str) else info
            one.size = one.size or len(data)
            tar.addfile(one, io.BytesIO(data))
        plain = buffer.getvalue()
    return buffer.getvalue() if end else plain


def extracted(data, directory):
    directory.mkdir(parents=True)
    extract_tar(io.BytesIO(data), directory)
    return fingerprint(scan(directory))


def refused(data, directory, match="."):
    with pytest.raises(ModuleError, match=match):
        extracted(data, directory / "m")
    assert list((directory / "m").iterdir()) == []


SMALL = gzip.compress(
    tar_of(("a", random.Random(1).randbytes(700)), ("b/c", b"text" * 99), ("d", b"")), mtime=0
)


def test_a_bit_that_flipped_is_refused_or_changes_nothing(tmp_path):
    expected = extracted(SMALL, tmp_path / "whole")
    accepted = []
    for bit in range(len(SMALL) * 8):
        data = bytearray(SMALL)
        data[bit // 8] ^= 1 << bit % 8
        try:
            found = extracted(bytes(data), tmp_path / str(bit))
        except ModuleError:
            continue
        assert found == expected, f"bit {bit}"
        accepted.append(bit // 8)
    # The header's time, speed and system have no effect, and repeated text may be copied from elsewhere.
    assert {4, 5, 6, 7, 8, 9} <= set(accepted)
    # The checksum and the size.
    assert not set(accepted) & set(range(len(SMALL) - 8, len(SMALL)))


@pytest.mark.parametrize("seed", range(20))
def test_a_genuine_module_with_a_flipped_bit(tmp_path, seed):
    data = bytearray(TINY.read_bytes())
    place = random.Random(seed).randrange(len(data) * 8)
    data[place // 8] ^= 1 << place % 8
    (tmp_path / "m.tar.gz").write_bytes(data)
    try:
        found = resolve_module(str(tmp_path / "m.tar.gz"), tmp_path / "cache").fingerprint
    except ModuleError:
        return
    assert found == resolve_module(str(TINY), tmp_path / "cache").fingerprint


def test_a_tarball_that_was_cut_is_refused(tmp_path):
    for size in range(0, len(SMALL), 7):
        refused(SMALL[:size], tmp_path / str(size))


def test_bytes_after_the_end_are_refused_but_padding_is_not(tmp_path):
    plain = tar_of(("a", b"x"))
    refused(SMALL + b"garbage", tmp_path / "1")
    refused(SMALL + SMALL, tmp_path / "2", "neither")
    refused(gzip.compress(plain + b"garbage"), tmp_path / "3", "neither")
    refused(gzip.compress(plain) + gzip.compress(b"garbage"), tmp_path / "4", "neither")
    refused(plain + plain, tmp_path / "5", "neither")
    whole = extracted(SMALL, tmp_path / "whole")
    assert extracted(SMALL + bytes(512), tmp_path / "6") == whole
    content = gzip.decompress(SMALL)
    halves = gzip.compress(content[:999]) + gzip.compress(content[999:])
    assert extracted(halves, tmp_path / "7") == whole
    assert extracted(content, tmp_path / "8") == whole


def test_a_plain_tarball_without_its_end_or_with_a_damaged_header_is_refused(tmp_path):
    plain = tar_of(("a", b"x"), ("b", b"y"))
    refused(plain[:2048], tmp_path / "1", "end is missing")
    refused(plain[:1024], tmp_path / "2", "end is missing")
    damaged = bytearray(plain)
    damaged[1024 + 150] ^= 1
    refused(bytes(damaged), tmp_path / "3", "neither")


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\x1f\x8b",
        b"<html>no module</html>" * 99,
        bytes(20_000),
        b"PK\x03\x04" + bytes(999),
        b"BZh9" + bytes(999),
    ],
)
def test_files_other_than_tarballs_are_refused(tmp_path, data):
    if not data.strip(b"\0") and len(data) > 1024:
        # An archive without members contains no module.
        assert extracted(data, tmp_path / "m") == fingerprint([])
    else:
        refused(data, tmp_path)


def bomb(size, level=9):
    """A gzipped tarball with one file of zeros, generated in pieces."""
    info = tarfile.TarInfo("zeros")
    info.size = size
    packer = zlib.compressobj(level, zlib.DEFLATED, 31)
    parts = [packer.compress(info.tobuf())]
    parts += [packer.compress(bytes(1 << 20)) for _ in range(size >> 20)]
    parts.append(packer.compress(bytes(10240)) + packer.flush())
    return b"".join(parts)


def test_a_bomb_is_refused_before_it_fills_the_disk(tmp_path):
    data = bomb(300 << 20)
    assert len(data) < 1 << 20
    refused(data, tmp_path, "more than 100 times its size")


def test_a_bomb_within_a_bomb(tmp_path):
    inner = gzip.compress(bytes(120 << 20), 9)
    refused(gzip.compress(inner + bytes(1 << 20)), tmp_path)


def test_the_size_and_the_number_of_members_are_bounded(tmp_path, monkeypatch):
    monkeypatch.setattr(tarball, "MAX_BYTES", 20_000)
    refused(tar_of(("a", random.Random(1).randbytes(30_000))), tmp_path / "1", "unpacks to more than")
    monkeypatch.setattr(tarball, "MAX_BYTES", 1 << 30)
    monkeypatch.setattr(tarball, "MAX_MEMBERS", 3)
    members = [(str(number), b"") for number in range(4)]
    assert extracted(tar_of(*members[:3]), tmp_path / "2")
    refused(tar_of(*members), tmp_path / "3", "more than 3 members")


def member(name, kind, link=""):
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, link
    return info


@pytest.mark.parametrize(
    "info",
    [
        member("a", tarfile.SYMTYPE, "/etc/passwd"),
        member("a", tarfile.SYMTYPE, "x"),
        member("a", tarfile.LNKTYPE, "x"),
        member("a", tarfile.LNKTYPE, "../../x"),
        member("a", tarfile.CHRTYPE),
        member("a", tarfile.BLKTYPE),
        member("a", tarfile.FIFOTYPE),
        member("a", tarfile.CONTTYPE),
        member("../a", tarfile.REGTYPE),
        member("/etc/a", tarfile.REGTYPE),
        member("b/../../a", tarfile.REGTYPE),
        member("a/" * 33 + "b", tarfile.REGTYPE),
        member("a" * 2000, tarfile.REGTYPE),
        member("x", tarfile.REGTYPE),
        member("x/y", tarfile.REGTYPE),
        member("", tarfile.REGTYPE),
    ],
    ids=lambda info: f"{info.type!r} {info.name[:12]} {info.linkname}",
)
def test_members_that_are_no_files_of_the_directory(tmp_path, info):
    directory = tmp_path / "in" / "m"
    directory.mkdir(parents=True)
    try:
        extract_tar(io.BytesIO(tar_of(("x", b"data"), (info, b""))), directory)
    except (ModuleError, OSError):
        pass
    else:
        # Absolute names lose their slash, as with tar itself. A contiguous file counts as a file.
        assert info.name == "/etc/a" or info.type == tarfile.CONTTYPE
    assert {path.name for path in tmp_path.iterdir()} == {"in"}
    assert {path.name for path in (tmp_path / "in").iterdir()} == {"m"}
    assert all(path.is_file() or path.is_dir() for path in directory.rglob("*"))
    assert not any(path.is_symlink() for path in directory.rglob("*"))


def test_a_sparse_file_that_claims_a_terabyte(tmp_path):
    info = tarfile.TarInfo("sparse")
    info.pax_headers = {
        "GNU.sparse.major": "1", "GNU.sparse.minor": "0", "GNU.sparse.realsize": str(1 << 40),
        "GNU.sparse.name": "huge",
    }  # fmt: skip
    refused(tar_of((info, b"1\n0\n0\n" + bytes(506))), tmp_path, "sparse|unpacks")


# --- headers


def pax(key, value, name="a", data=b"x"):
    """A member with an extended header of one record."""
    record = f" {key}={value}\n".encode()
    size = len(record)
    while len(str(size)) + len(record) != size:
        size = len(str(size)) + len(record)
    info = tarfile.TarInfo(name)
    info.size = len(data)
    header = tarfile.TarInfo("header")
    header.type, header.size = tarfile.XHDTYPE, size
    return header.tobuf() + padded(str(size).encode() + record) + info.tobuf() + padded(data)


def padded(data):
    return data + bytes(-len(data) % tarfile.BLOCKSIZE)


def negative():
    """A member with the size -1 in the format for large files."""
    header = bytearray(tarfile.TarInfo("a").tobuf())
    header[124:136] = b"\xff" * 12
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    return bytes(header)


NESTED = {
    "extended": member("h", tarfile.XHDTYPE),
    "global": member("h", tarfile.XGLTYPE),
    "long name": member("h", tarfile.GNUTYPE_LONGNAME),
}
HEADERS = {
    **{f"mtime {time}": pax("mtime", time) for time in ("1e400", "1e30", "-1e30", "nan")},
    **{f"{name} in {name}": one.tobuf() * 3000 for name, one in NESTED.items()},
    "a NUL": pax("path", "a\0b"),
    "a path above": pax("path", "../x"),
    "a way up and down": tar_of(("q/x", b""), end=False)[:1024] + pax("path", "q/../a"),
    "a huge size": pax("size", "9" * 20),
    "a sparse file": pax("GNU.sparse.map", "0,1"),
    "a sparse file without a map": pax("GNU.sparse.size", "1e9"),
    "a negative size": negative(),
}


@pytest.mark.parametrize("kind", HEADERS)
def test_headers_that_make_no_sense_are_refused(tmp_path, kind):
    refused_all(HEADERS[kind] + bytes(1024), tmp_path)


def refused_all(data, directory):
    """Checks that resolving a module gives one line and leaves no file."""
    (directory / "m.tar").write_bytes(data)
    with pytest.raises(ModuleError):
        resolve_module(str(directory / "m.tar"), directory / "cache")
    assert list((directory / "cache" / "modules").iterdir()) == []
    (directory / "m").mkdir()
    with pytest.raises(ModuleError):
        extract_tar(io.BytesIO(data), directory / "m")


@pytest.mark.parametrize("names", [("n", "n/x"), (".",), ("x" * 300 + "/y",), ("\\..\\x", "\\..\\x")])
def test_names_that_cannot_be_files(tmp_path, names):
    data = tar_of(*((name, b"x") for name in names))
    (tmp_path / "m.tar").write_bytes(data)
    with pytest.raises(ModuleError):
        resolve_module(str(tmp_path / "m.tar"), tmp_path / "cache")
    assert list((tmp_path / "cache" / "modules").iterdir()) == []
