"""The members of a zip and their bytes, against Python's ``zipfile``; inconsistent archives fail."""

from __future__ import annotations

import io
import random
import struct
import tracemalloc
import zipfile

import pytest

from beamlabel.transforms.archive_member import Member
from beamlabel.transforms.inputs.archives.entries import Broken, Entry
from beamlabel.transforms.inputs.archives.windows import FileWindow
from beamlabel.transforms.inputs.archives.zip import unpacked
from beamlabel.transforms.records import ImageError, Reason
from support.archives import entries_of, zip_by_hand, zipped

MEMBERS = {
    "a.jpg": b"first" * 100,
    "directory/é 漢.jpg": b"",
    "b#1?.png": bytes(100_000),
    "n" * 300 + ".jpg": b"long",
}


def read(data: bytes, entry: Entry | Broken, most: int | None = None) -> bytes:
    assert isinstance(entry, Entry)
    assert entry.problem is None
    member = Member("", None, entry.offset, entry.size, entry.zipped)
    return unpacked(FileWindow(io.BytesIO(data), len(data), sparing=True), member, most=most)


def contents(data: bytes) -> dict[str, bytes]:
    entries = entries_of(data, kind="zip")
    return {
        entry.name: read(data, entry)
        for entry in entries
        if isinstance(entry, Entry) and not entry.is_directory
    }


def problem(data: bytes) -> Reason:
    """The error of a zip or of its only member."""
    (entry,) = entries_of(data, kind="zip")
    if entry.problem is None:
        with pytest.raises(ImageError) as error:
            read(data, entry)
        return error.value.reason
    return entry.problem[0]


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
@pytest.mark.parametrize("before", [b"", b"MZ a program that unpacks it" * 50])
def test_members(method: int, before: bytes) -> None:
    data = before + zipped(MEMBERS, method)
    assert contents(data) == MEMBERS
    assert entries_of(zipped({}), kind="zip") == []


def test_only_the_first_bytes() -> None:
    for method in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        data = zipped({"a": random.Random(1).randbytes(5000)}, method)
        assert read(data, entries_of(data, kind="zip")[0], 64) == random.Random(1).randbytes(5000)[:64]


def test_zip64_descriptors_comments_and_directories() -> None:
    class Unseekable(io.BytesIO):
        def seekable(self) -> bool:
            return False

        def tell(self) -> int:
            raise OSError

        def seek(self, *_: int) -> int:
            raise OSError

    buffer = Unseekable()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.mkdir("directory")
        for name, data in MEMBERS.items():
            with archive.open(name, "w", force_zip64=True) as file:
                file.write(data)
        archive.comment = b"PK\5\6 a comment that looks like an end"
    assert contents(buffer.getvalue()) == MEMBERS


def test_more_members_than_the_old_end_record_can_count() -> None:
    data = zipped({f"{number}.jpg": b"" for number in range(70_000)}, zipfile.ZIP_STORED)
    entries = entries_of(data, kind="zip")
    assert len(entries) == 70_000
    assert entries[-1].problem is None


def test_names_in_cp437_and_in_utf8() -> None:
    old = zip_by_hand(b"x", name="é.jpg".encode("cp437"))
    assert contents(old) == {"é.jpg": b"x"}
    assert list(contents(zip_by_hand(b"x", name="漢.jpg".encode(), flags=0x800))) == ["漢.jpg"]
    assert list(contents(zip_by_hand(b"x", name="漢é.jpg".encode()))) == ["漢é.jpg"]  # macOS does not mark it
    broken = zip_by_hand(b"x", name=b"\xff.jpg", flags=0x800)
    assert list(contents(broken)) == ["\udcff.jpg"]


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"size": 10}, Reason.CORRUPT),  # less than the real size: a bomb
        ({"size": 10**6}, Reason.CORRUPT),
        ({"crc32": 1}, Reason.CORRUPT),
        ({"local_name": b"b.jpg"}, Reason.CORRUPT),
        ({"method": 0, "size": 99}, Reason.CORRUPT),
        ({"flags": 1}, Reason.UNSUPPORTED_FORMAT),
        ({"flags": 0x2000}, Reason.UNSUPPORTED_FORMAT),
        ({"method": 12}, Reason.UNSUPPORTED_FORMAT),
        ({"disk": 1}, Reason.UNSUPPORTED_FORMAT),
        ({"attributes": 0o120777}, Reason.NOT_A_FILE),
        ({"attributes": 0o020666}, Reason.NOT_A_FILE),
    ],
    ids=str,
)
def test_parts_that_do_not_fit_together_fail(changes: dict[str, int], reason: Reason) -> None:
    data = b"image" * 5000
    assert contents(zip_by_hand(data)) == {"a.jpg": data}
    assert problem(zip_by_hand(data, **changes)) is reason  # type: ignore[arg-type]


def test_a_bomb_is_not_inflated_beyond_its_size() -> None:
    bomb = zip_by_hand(bytes(50 << 20), size=1000)
    tracemalloc.start()
    assert problem(bomb) is Reason.CORRUPT
    assert tracemalloc.get_traced_memory()[1] < 5 << 20
    tracemalloc.stop()


def test_members_that_overlap_fail() -> None:
    data = zip_by_hand(b"image" * 100, entries=3)
    found = [entry.problem and entry.problem[0] for entry in entries_of(data, kind="zip")]
    assert found == [Reason.CORRUPT] * 3


def test_a_size_beyond_those_of_files_is_corrupt() -> None:
    field = struct.pack("<2HQ", 1, 8, (1 << 64) - 1)  # a zip64 field
    data = bytearray(zip_by_hand(b"image", size=0xFFFFFFFF))
    end = len(data) - 22
    struct.pack_into("<H", data, data.index(b"PK\1\2") + 30, len(field))
    struct.pack_into("<L", data, end + 12, end - data.index(b"PK\1\2") + len(field))
    (entry,) = entries_of(bytes(data[:end] + field + data[end:]), kind="zip")
    assert isinstance(entry, Entry)
    assert (entry.size, entry.problem and entry.problem[0]) == (0, Reason.CORRUPT)


def test_a_cut_zip_and_no_zip() -> None:
    data = zipped(MEMBERS)
    for stop in (0, 10, len(data) // 2, len(data) - 1):
        (entry,) = entries_of(data[:stop], kind="zip")
        assert isinstance(entry, Broken)
        assert entry.problem[0] is Reason.TRUNCATED


def test_a_directory_that_claims_too_many_members() -> None:
    data = bytearray(zipped({"a.jpg": b"x"}))
    struct.pack_into("<2H", data, len(data) - 14, 9999, 9999)
    (entry,) = entries_of(bytes(data), kind="zip")
    assert isinstance(entry, Broken)
    assert entry.problem[0] is Reason.CORRUPT


def test_flipped_bits_never_raise_and_never_give_other_bytes() -> None:
    data, rng = zipped({name: content[:500] for name, content in MEMBERS.items()}), random.Random(17)
    right = {name: content[:500] for name, content in MEMBERS.items()}
    for _ in range(400):
        damaged = bytearray(data)
        damaged[rng.randrange(len(damaged))] ^= 1 << rng.randrange(8)
        for entry in entries_of(bytes(damaged), kind="zip"):
            if entry.problem is None and isinstance(entry, Entry):
                try:
                    assert read(bytes(damaged), entry) in right.values()
                except ImageError as error:
                    assert error.reason in (Reason.CORRUPT, Reason.TRUNCATED, Reason.UNSUPPORTED_FORMAT)
