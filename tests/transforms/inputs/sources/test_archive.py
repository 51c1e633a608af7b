"""An archive as a source: its units, their references, and the bytes read for them."""

from __future__ import annotations

import bz2
import gzip
import lzma
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from beamlabel.transforms import storage
from beamlabel.transforms.inputs.packed_refs import RefSpiller
from beamlabel.transforms.inputs.selection import Selection, SelectionOptions
from beamlabel.transforms.inputs.sources.path_filter import PathFilter
from beamlabel.transforms.inputs.sources.source import SourceOptions
from beamlabel.transforms.loading.fetch import FetchOptions
from beamlabel.transforms.loading.fetch_member import fetch_member
from beamlabel.transforms.records import Failure, ImageError, ImageRef, InputFile, Reason, UnitEnd, WorkUnit
from beamlabel.transforms.storage.identity import image_id, image_id_of_member
from beamlabel.transforms.storage.uris import sample_hash
from beamlabel.transforms.units.open_unit import open_unit
from beamlabel.transforms.units.plan_units import plan_files
from support.archives import tar, tar_member, zipped
from support.gcs_server import Bucket
from support.images import encode, photo

JPEG = encode(photo(32, 24), "JPEG")
NAMES = [f"directory/é{number:02d}.jpg" for number in range(20)]
MEMBERS = {name: JPEG + random.Random(name).randbytes(2000) for name in NAMES}
PACKED: dict[str, Callable[[bytes], bytes]] = {
    "a.tar": bytes,
    "a.tar.gz": gzip.compress,
    "a.tar.bz2": bz2.compress,
    "a.tar.xz": lzma.compress,
    "a.tar.zst": lambda data: bytes(pa.compress(data, "zstd", asbytes=True)),
}


def write(path: Path | str, data: bytes) -> InputFile:
    storage.write_bytes(str(path), data)
    found = storage.stat(str(path))
    format_ = "zip" if str(path).endswith(".zip") else "tar"
    return InputFile(str(path), format_, found.size, found.version)


def plan(file: InputFile, **options: Any) -> list[WorkUnit]:
    return list(plan_files([(0, file)], SourceOptions(base_dir="/", **options)))


def opened(units: list[WorkUnit], **options: Any) -> list[ImageRef | Failure]:
    found: list[ImageRef | Failure] = []
    for unit in units:
        *refs, end = open_unit(unit, SourceOptions(base_dir="/", **options), Selection(SelectionOptions()))
        assert isinstance(end, UnitEnd)
        assert end.sent == len(refs)
        found += [ref for ref in refs if not isinstance(ref, UnitEnd)]
    return found


def data_of(ref: ImageRef | Failure) -> bytes:
    assert isinstance(ref, ImageRef)
    if ref.data is not None:
        return ref.data
    assert ref.member is not None
    return fetch_member(ref.member, FetchOptions()).data


def archive(directory: Path, name: str, members: dict[str, bytes] = MEMBERS) -> InputFile:
    data = zipped(members) if name.endswith(".zip") else PACKED[name](tar(members))
    return write(directory / name, data)


@pytest.mark.parametrize("name", [*PACKED, "a.zip"])
def test_members_are_references(tmp_path: Path, name: str) -> None:
    file = archive(tmp_path, name)
    refs = opened(plan(file))
    assert [ref.uri for ref in refs] == [f"{file.path}#{member}" for member in NAMES]
    assert [ref.ref_id for ref in refs] == [f"{file.path}#{row}" for row in range(20)]
    assert list(map(data_of, refs)) == list(MEMBERS.values())
    assert [ref.image_id for ref in refs] == [image_id_of_member(file.path, member) for member in NAMES]
    assert not {ref.image_id for ref in refs} & {image_id(ref.uri) for ref in refs if ref.uri}


def test_units_tile_and_carry_their_references_or_stage_them(tmp_path: Path) -> None:
    file = archive(tmp_path, "a.tar")
    units = plan(file, shard_rows=6)
    assert [(unit.start, unit.stop, unit.last) for unit in units] == [
        (0, 6, False), (6, 12, False), (12, 18, False), (18, 20, True)
    ]  # fmt: skip
    spiller = RefSpiller(str(tmp_path))
    spiller._carried = 1 << 30
    staged = [spiller.spill(unit) for unit in units]
    assert all(unit.refs_path for unit in staged)
    assert opened(staged, shard_rows=6) == opened(units, shard_rows=6)


@pytest.mark.parametrize("name", [*PACKED, "a.zip"])
def test_a_limit_and_a_sample_choose_the_same_everywhere(tmp_path: Path, name: str) -> None:
    file = archive(tmp_path, name)
    kept = [uri for member in NAMES if sample_hash(uri := f"{file.path}#{member}") < 0.5]
    options = {"sample": 0.5, "limit": 4}
    assert [ref.uri for ref in opened(plan(file, **options), **options)] == kept[:4]
    assert [ref.uri for ref in opened(plan(file, sample=0.5), sample=0.5)] == kept
    assert len(opened(plan(file, limit=3), limit=3)) == 3
    assert opened(plan(file, limit=100), limit=100) == opened(plan(file))


@pytest.mark.parametrize("name", [*PACKED, "a.zip"])
def test_without_a_member(tmp_path: Path, name: str) -> None:
    units = plan(archive(tmp_path, name, {}))
    assert [unit.last for unit in units] == [True]
    assert opened(units) == []


@pytest.mark.parametrize("name", [*PACKED, "a.zip"])
def test_files_other_than_images_are_left_out_and_counted(tmp_path: Path, name: str) -> None:
    others = {
        "a/b.json": b"{}", ".DS_Store": b"x", "__MACOSX/._a.jpg": b"x", "x/Thumbs.db": b"x", "README": b"text",
    }  # fmt: skip
    images = {"jpeg without a name": JPEG, "v1.0/x.y.JPG": b"broken", "no.jpg": b"", "skip.seg.png": b"x"}
    file = archive(tmp_path, name, {**others, **images})
    options = {"files": PathFilter(("*.tar",), ("*.seg.png",))}
    (unit,) = plan(file, **options)
    *refs, end = open_unit(unit, SourceOptions(base_dir="/", **options), Selection(SelectionOptions()))
    names = [ref.uri.rpartition("#")[2] for ref in refs if isinstance(ref, (ImageRef, Failure)) and ref.uri]
    assert names == list(images)[:3]
    assert isinstance(end, UnitEnd)
    assert dict(end.unit.left_out) == {"not_an_image": 2, "hidden": 3, "excluded": 1}


@pytest.mark.parametrize("compress", [bytes, gzip.compress])
def test_each_kind_of_attack_fails_alone(tmp_path: Path, compress: Callable[[bytes], bytes]) -> None:
    data = b"".join(
        (
            tar_member("a.jpg", JPEG),
            tar_member("/etc/b.jpg", JPEG),
            tar_member("../../c.jpg", JPEG),
            tar_member("d.jpg", type=b"2", linkname="/etc/passwd"),
            tar_member("e.jpg", type=b"1", linkname="a.jpg"),
            tar_member("f.jpg", type=b"3"),
            tar_member("g.jpg", type=b"6"),
            tar_member("h.jpg", JPEG, type=b"S"),
            tar_member("big.jpg", bytes(5000)),
            tar_member("empty.jpg"),
            tar_member("z.jpg", JPEG),
            tar_member("z.jpg", JPEG + b"again"),
        )
    )
    file = write(tmp_path / "a.tar", compress(data + bytes(1024)))
    refs = opened(plan(file), max_bytes=4000)
    found: dict[str, Reason] = {}
    for ref in refs:
        name = (ref.uri or "").rpartition("#")[2]
        if isinstance(ref, Failure):
            found[name] = ref.reason
        elif ref.member is not None:
            try:
                fetch_member(ref.member, FetchOptions(max_bytes=4000))
            except ImageError as error:
                found[name] = error.reason
    assert found == {
        "/etc/b.jpg": Reason.INVALID_URI,
        "../../c.jpg": Reason.INVALID_URI,
        "d.jpg": Reason.NOT_A_FILE,
        "e.jpg": Reason.NOT_A_FILE,
        "f.jpg": Reason.NOT_A_FILE,
        "g.jpg": Reason.NOT_A_FILE,
        "h.jpg": Reason.UNSUPPORTED_FORMAT,
        "big.jpg": Reason.TOO_MANY_BYTES,
        "empty.jpg": Reason.EMPTY_FILE,
    }
    assert len({ref.ref_id for ref in refs}) == len(refs) == 12
    assert [data_of(ref) for ref in refs[-2:]] == [JPEG, JPEG + b"again"]


@pytest.mark.parametrize("name", [*PACKED, "a.zip"])
def test_a_cut_archive_gives_the_members_before_the_cut_and_a_failure(tmp_path: Path, name: str) -> None:
    whole = Path(archive(tmp_path, name).path).read_bytes()
    file = write(tmp_path / name, whole[: len(whole) * 2 // 3 + 1])
    *good, failure = opened(plan(file))
    assert isinstance(failure, Failure)
    assert failure.reason is Reason.TRUNCATED
    assert (failure.uri or "").startswith(file.path)
    assert list(map(data_of, good)) == list(MEMBERS.values())[: len(good)]
    assert len(good) >= (10 if name in ("a.tar", "a.tar.gz", "a.tar.xz") else 0)


def test_an_archive_that_changes_is_not_read_on(tmp_path: Path) -> None:
    file = archive(tmp_path, "a.tar")
    units = plan(file)
    (ref, *_) = opened(units)
    write(tmp_path / "a.tar", tar({"other.jpg": JPEG}))
    assert isinstance(ref, ImageRef)
    with pytest.raises(ImageError):
        data_of(ref)
    with pytest.raises(ValueError, match="has changed"):
        opened(units)
    with pytest.raises(ValueError, match="has changed"):
        plan(file)


@pytest.mark.parametrize("name", ["a.tar", "a.zip"])
def test_on_a_bucket_only_chosen_files_are_read(gcs: Bucket, name: str) -> None:
    size, count = 100_000, 100
    members = {f"{number:03d}.jpg": JPEG + number.to_bytes(2, "big") * (size // 2) for number in range(count)}
    data = tar(members) if name == "a.tar" else zipped(members, 0)
    file = write(gcs.uri(name), data)
    gcs.server.requests.clear()
    refs = opened(plan(file, sample=0.05), sample=0.05)
    assert 0 < len(refs) < 20
    assert list(map(data_of, refs)) == [members[(ref.uri or "").rpartition("#")[2]] for ref in refs]
    read = 0
    for request in gcs.server.requests:
        first, _, last = request.headers.get("Range", "").removeprefix("bytes=").partition("-")
        read += int(last) - int(first) + 1 if last else 0
    assert read < len(refs) * 1.1 * size + count * (20 << 10)


def test_on_a_bucket_a_plan_makes_few_requests(gcs: Bucket) -> None:
    file = write(gcs.uri("a.tar"), tar({f"{number:04d}.jpg": JPEG + bytes(10_000) for number in range(1000)}))
    gcs.server.requests.clear()
    units = plan(file)
    assert len(gcs.server.requests) <= 8
    gcs.server.requests.clear()
    assert len(opened(units)) == 1000
    assert len(gcs.server.requests) == len(units)
    assert units[0].input_file.version is not None


@pytest.mark.parametrize("name", ["a.tar", "a.zip"])
def test_a_bucket_that_fails_is_asked_again_and_a_replaced_archive_is_not_read(
    gcs: Bucket, name: str
) -> None:
    data = tar(MEMBERS) if name == "a.tar" else zipped(MEMBERS)
    refs = opened(plan(write(gcs.uri(name), data)))
    gcs.server.fail_next(2, 503, method="GET", contains="alt=media")
    assert data_of(refs[0]) == MEMBERS[NAMES[0]]
    assert data_of(refs[-1]) == MEMBERS[NAMES[-1]]
    write(gcs.uri(name), data)
    with pytest.raises(ImageError) as error:
        data_of(refs[1])
    assert error.value.reason is Reason.NOT_FOUND
    assert "changed" in error.value.detail


def test_the_number_of_images_is_estimated(tmp_path: Path) -> None:
    from beamlabel.transforms.inputs.sources.registry import source_of

    members = {f"{number}.{kind}": JPEG for number in range(300) for kind in ("jpg", "txt")}
    for name, count in (("a.tar", 300), ("a.zip", 600)):
        file = archive(tmp_path, name, members)
        assert source_of(file.format).estimate(file, SourceOptions(base_dir="/")) == pytest.approx(
            count, rel=0.1
        )
