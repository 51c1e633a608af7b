"""The members of a tar by its headers, against Python's ``tarfile``; damage is an error, never a member."""

from __future__ import annotations

import io
import random
import tarfile

import pytest

from beamlabel.transforms.inputs.archives.entries import Broken, Entry, name_problem
from beamlabel.transforms.inputs.archives.tar import is_tar, tar_entries
from beamlabel.transforms.inputs.archives.windows import FileWindow
from beamlabel.transforms.records import Reason
from support.archives import entries_of, padded, tar, tar_member, with_checksum

END = bytes(1024)
LONG = "long/" * 60 + "ü.jpg"
MEMBERS = {
    "a.jpg": b"first",
    "directory/é 漢.jpg": b"",
    LONG: b"x" * 3000,
    "b/c.d.e.png": bytes(512),
    "last#1?.webp": b"y" * 513,
}


def contents(data: bytes, entries: list[Entry | Broken]) -> dict[str, bytes]:
    return {
        entry.name: data[entry.offset : entry.offset + entry.size]
        for entry in entries
        if entry_is_good(entry)
    }


def entry_is_good(entry: Entry | Broken) -> bool:
    return isinstance(entry, Entry) and entry.problem is None and not entry.is_directory


def only_problem(data: bytes) -> Reason:
    (entry,) = entries_of(data)
    assert isinstance(entry, Entry)
    assert entry.problem is not None
    return entry.problem[0]


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("format_", [tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_members_of_each_format(format_: int, stream: bool) -> None:
    data = tar(MEMBERS, format=format_)
    assert is_tar(data[:512])
    assert contents(data, entries_of(data, stream=stream)) == MEMBERS


def test_names_of_ustar_with_a_prefix() -> None:
    names = {f"{'directory/' * 14}{number}.jpg": b"x" for number in range(3)}
    data = tar(names, format=tarfile.USTAR_FORMAT)
    assert contents(data, entries_of(data)) == names


def test_the_seventh_edition_has_no_magic() -> None:
    header = bytearray(tar_member("a.jpg", b"old")[:512])
    header[156:157], header[257:] = b"\0", bytes(255)
    data = with_checksum(bytes(header)) + padded(b"old") + END
    assert is_tar(data)
    assert contents(data, entries_of(data)) == {"a.jpg": b"old"}


def test_names_that_are_no_utf8_and_a_dot_before_them() -> None:
    data = tar_member("./" + b"\xff.jpg".decode("utf-8", "surrogateescape"), b"x") + END
    assert [entry.name for entry in entries_of(data) if isinstance(entry, Entry)] == ["\udcff.jpg"]


def test_the_times_of_an_old_gnu_header_are_no_prefix() -> None:
    header = bytearray(tar_member("a.jpg", b"x"))
    header[345:357] = b"14000000000\0"
    data = with_checksum(bytes(header)) + END
    assert contents(data, entries_of(data)) == {"a.jpg": b"x"}


def test_sizes_of_pax_and_in_base_256() -> None:
    record = b"12 size=513\n"
    extended = tar_member("pax", record, type=tarfile.XHDTYPE)
    data = extended + tar_member("a.jpg", size=0) + padded(b"z" * 513) + tar_member("b.jpg", b"next") + END
    assert contents(data, entries_of(data)) == {"a.jpg": b"z" * 513, "b.jpg": b"next"}
    huge = tar_member("a.jpg", b"", size=2**40)[:512]
    (entry,) = entries_of(huge + bytes(1024))
    assert isinstance(entry, Entry)
    assert (entry.size, entry.problem and entry.problem[0]) == (2**40, Reason.TRUNCATED)


def test_a_global_header_counts_until_a_member_says_otherwise() -> None:
    of_all = tar_member("g", b"18 path=shared.jpg\n".replace(b"18", b"19"), type=tarfile.XGLTYPE)
    own = tar_member("x", b"16 path=own.jpg\n", type=tarfile.XHDTYPE)
    data = of_all + own + tar_member("a", b"1") + tar_member("b", b"2") + END
    assert list(contents(data, entries_of(data))) == ["own.jpg", "shared.jpg"]


@pytest.mark.parametrize(
    "kind", [tarfile.LNKTYPE, tarfile.SYMTYPE, tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE]
)
def test_links_and_devices_are_no_files(kind: bytes) -> None:
    member = tar_member("a.jpg", type=kind, linkname="/etc/passwd", size=700)
    assert only_problem(member + END) is Reason.NOT_A_FILE
    following = member + tar_member("b.jpg", b"next") + END
    assert contents(following, entries_of(following)) == {"b.jpg": b"next"}


def test_directories_are_no_members() -> None:
    data = tar_member("a/", type=tarfile.DIRTYPE) + tar_member("a/b.jpg", b"x") + END
    assert contents(data, entries_of(data)) == {"a/b.jpg": b"x"}
    assert len(entries_of(data)) == 2


def test_sparse_members_are_refused_and_passed() -> None:
    header = bytearray(tar_member("a.jpg", b"x" * 600, type=tarfile.GNUTYPE_SPARSE))
    header[482] = 1
    more = bytearray(512)
    more[504] = 1
    old = with_checksum(bytes(header[:512])) + bytes(more) + bytes(512) + padded(b"x" * 600)
    pax = tar_member("p", b"22 GNU.sparse.major=1\n", type=tarfile.XHDTYPE) + tar_member("b.jpg", b"map")
    data = old + pax + tar_member("c.jpg", b"next") + END
    entries = entries_of(data)
    assert contents(data, entries) == {"c.jpg": b"next"}
    assert [entry.problem[0] for entry in entries if isinstance(entry, Entry) and entry.problem] == [
        Reason.UNSUPPORTED_FORMAT
    ] * 2


@pytest.mark.parametrize(
    ("name", "is_refused"),
    [
        ("/etc/a.jpg", True),
        ("../a.jpg", True),
        ("a/../../b.jpg", True),
        ("a\\..\\b.jpg", True),
        ("C:\\a.jpg", True),
        ("c:/a.jpg", True),
        ("\\\\host\\a.jpg", True),
        ("a\0.jpg", True),
        ("a..b.jpg", False),
        ("..a/b.jpg", False),
        ("a: b.jpg", False),
        ("new\nline.jpg", False),
    ],
)
def test_names_that_lead_out_of_an_archive(name: str, is_refused: bool) -> None:
    problem = name_problem(name)
    assert (problem is not None and problem[0] is Reason.INVALID_URI) == is_refused


@pytest.mark.parametrize("stream", [False, True])
def test_without_an_end_mark_and_without_padding(stream: bool) -> None:
    data = tar_member("a.jpg", b"whole")
    assert contents(data, entries_of(data, stream=stream)) == {"a.jpg": b"whole"}
    cut = data[: 512 + 5]
    good, broken = entries_of(cut, stream=stream)
    assert contents(cut, [good]) == {"a.jpg": b"whole"}
    assert isinstance(broken, Broken)
    assert broken.problem[0] is Reason.TRUNCATED


def test_a_tar_behind_a_tar_is_read_and_waste_behind_one_is_not() -> None:
    one, other = tar({"a.jpg": b"1"}), tar({"b.jpg": b"2"})
    assert list(contents(one + other, entries_of(one + other))) == ["a.jpg", "b.jpg"]
    assert list(contents(one + b"waste" * 300, entries_of(one + b"waste" * 300))) == ["a.jpg"]
    assert not [entry for entry in entries_of(one + b"waste" * 300) if isinstance(entry, Broken)]


def test_an_empty_tar() -> None:
    assert entries_of(tar({})) == entries_of(b"") == []


@pytest.mark.parametrize("stream", [False, True])
def test_members_before_any_cut_are_right_and_the_cut_is_reported(stream: bool) -> None:
    data = tar(MEMBERS, format=tarfile.PAX_FORMAT)
    whole = [entry for entry in entries_of(data) if isinstance(entry, Entry)]
    for stop in range(0, whole[-1].offset + whole[-1].size, 97):
        found = entries_of(data[:stop], stream=stream)
        good = [entry for entry in found if isinstance(entry, Entry) and entry.offset + entry.size <= stop]
        assert good == whole[: len(good)]
        rest = found[len(good) :]
        assert rest or stop == 0, stop
        assert len(rest) <= 2
        if rest and not stream:
            (last,) = rest
            assert last.problem is not None
            assert last.problem[0] is Reason.TRUNCATED


def test_a_damaged_header_ends_the_archive_and_is_reported() -> None:
    data = bytearray(tar_member("a.jpg", b"1") + tar_member("b.jpg", b"2") + tar_member("c.jpg", b"3") + END)
    data[1024 + 5] ^= 0xFF
    good, broken = entries_of(bytes(data))
    assert isinstance(good, Entry)
    assert isinstance(broken, Broken)
    assert broken.problem[0] is Reason.CORRUPT
    assert "1024" in broken.problem[1]


@pytest.mark.parametrize(
    "record",
    [b"999 path=a\n", b"12 size=abc\n", b"13 size=-513\n", b"x\n", b"0 a=b\n", b"11 nothing\n", b"6 a=bc"],
)
def test_malformed_extended_headers_are_reported(record: bytes) -> None:
    data = tar_member("p", record, type=tarfile.XHDTYPE) + tar_member("a.jpg", b"1") + END
    assert [entry.problem and entry.problem[0] for entry in entries_of(data)] == [Reason.CORRUPT]


def test_extended_headers_without_end_are_not_read() -> None:
    data = tar_member("p", type=tarfile.XHDTYPE, size=1 << 33)[:512] + bytes(4096)
    assert [entry.problem and entry.problem[0] for entry in entries_of(data)] == [Reason.CORRUPT]


@pytest.mark.parametrize("stream", [False, True])
def test_sizes_beyond_those_of_files_are_told(stream: bool) -> None:
    """In a PAX header and in base 256; a failure row could not hold them."""
    record = b"28 size=9999999999999999999\n"
    wide = bytearray(tar_member("a.jpg"))
    wide[124:136] = b"\x80" + (1 << 80).to_bytes(11, "big")
    for data in (
        tar_member("p", record, type=tarfile.XHDTYPE) + tar_member("a.jpg", b"1"),
        with_checksum(bytes(wide)),
    ):
        good, broken = entries_of(tar_member("good.jpg", b"1") + data + END, stream=stream)
        assert isinstance(good, Entry)
        assert isinstance(broken, Broken)
        assert broken.problem[0] is Reason.CORRUPT


def test_flipped_bits_never_raise() -> None:
    data, rng = tar(MEMBERS, format=tarfile.PAX_FORMAT), random.Random(17)
    whole = contents(data, entries_of(data))
    for _ in range(400):
        damaged = bytearray(data)
        damaged[rng.randrange(len(damaged))] ^= 1 << rng.randrange(8)
        found = entries_of(bytes(damaged))
        assert len(found) <= len(whole) + 1
        assert entries_of(bytes(damaged), stream=True)[: len(found) - 1] == found[:-1]


def test_few_bytes_are_read_if_few_are_wanted() -> None:
    data = tar({f"{number}.jpg": bytes(200_000) for number in range(50)})

    class Counting(io.BytesIO):
        bytes = 0

        def read(self, size: int | None = -1) -> bytes:  # type: ignore[valid-type]
            found = super().read(size)
            self.bytes += len(found)
            return found

    sparing, ahead = Counting(data), Counting(data)
    assert list(tar_entries(FileWindow(sparing, len(data), sparing=True))) == list(
        tar_entries(FileWindow(ahead, len(data), sparing=False))
    )
    assert sparing.bytes < len(data) / 10
    assert ahead.bytes <= len(data)
