"""References inside units and in the staging directory give the same result."""

import dataclasses
import hashlib
import json
import zlib

import pytest

from beamlabel.transforms import storage
from beamlabel.transforms.inputs import packed_refs
from beamlabel.transforms.inputs.packed_refs import (
    CARRIED_BYTES,
    PackedRef,
    RefSpiller,
    pack,
    references,
    unpack,
)
from beamlabel.transforms.inputs.parquet_source import ParquetColumns
from beamlabel.transforms.inputs.selection import Selection
from beamlabel.transforms.inputs.sources.source import SourceOptions
from beamlabel.transforms.records import InputFile, WorkUnit
from beamlabel.transforms.units.open_unit import open_unit, skip_unit
from beamlabel.transforms.units.plan_units import plan_files
from support.jobs import label, photos, uri_list


def unit(number):
    # Only the number of the bytes matters here.
    packed = bytes(CARRIED_BYTES // 4)
    return WorkUnit(f"{number:05d}", InputFile("list.txt", "text"), 0, 1, False, packed_refs=packed)


def test_units_carry_their_references_until_it_is_much(tmp_path):
    spiller = RefSpiller(str(tmp_path))
    light = [spiller.spill(unit(number)) for number in range(6)]
    assert [one.packed_refs is not None for one in light] == [True] * 4 + [False] * 2
    assert sorted(path.name for path in (tmp_path / "references").iterdir()) == ["00004", "00005"]
    parquet = dataclasses.replace(unit(9), packed_refs=None)
    assert spiller.spill(parquet) is parquet
    with pytest.raises(ValueError, match="has no references"):
        references(parquet)


def test_the_digest_covers_the_references(tmp_path):
    refs = [PackedRef(row, f"{row}.jpg", (row, "v1")) for row in range(100)]
    packed = pack(refs, with_listing_stat=True)
    assert list(unpack(packed.data)) == refs
    text = zlib.decompress(packed.data)
    assert packed.sha256 == hashlib.sha256(text).hexdigest() != pack(refs[:-1], with_listing_stat=True).sha256
    bare = pack(refs, with_listing_stat=False)
    assert list(unpack(bare.data)) == [ref._replace(listing_stat=None) for ref in refs]
    assert bare.sha256 == packed.sha256
    replaced = [refs[0]._replace(listing_stat=(0, "v2")), *refs[1:]]
    assert pack(replaced, with_listing_stat=False).sha256 != bare.sha256


@pytest.mark.parametrize("rest", [None, {"offset": 1, "ö": None}, [1, "a"], "text"])
@pytest.mark.parametrize("stat", [None, (7, "v"), (None, "v"), (7, None), (None, None)])
def test_a_line_is_json_with_any_text(rest, stat):
    uris = ["a.jpg", 'a"b\\c', "ü\u2028\n\0", "\udc80 is no UTF-8", "\U0001f600", ""]
    refs = [PackedRef(row, uri, stat, rest) for row, uri in enumerate(uris)]
    lines = zlib.decompress(pack(refs, with_listing_stat=True).data).decode("ascii").split("\n")
    values = [list(ref[:4]) for ref in refs]
    while values[0][-1] is None:
        values = [value[:-1] for value in values]
    assert lines == [json.dumps(value, separators=(",", ":")) for value in values]
    assert list(unpack(pack(refs, with_listing_stat=True).data)) == refs


@pytest.mark.parametrize("where", ["a directory", "gs://"])
def test_staged_references_are_opened_and_counted_as_carried_ones(tmp_path, gcs, where, monkeypatch):
    staging = str(tmp_path / "staging") if where == "a directory" else f"{gcs.url}/staging"
    lines = tmp_path / "list.txt"
    lines.write_text("".join(f"{n}.jpg\n" for n in range(10)))
    options = SourceOptions("/base", ParquetColumns(uri="uri"), shard_rows=4)
    carried = list(plan_files([(0, InputFile(str(lines), "text"))], options))
    monkeypatch.setattr(packed_refs, "CARRIED_BYTES", 0)
    for _ in range(2):  # a retried bundle finds them staged
        staged = [*map(RefSpiller(staging).spill, carried)]
    assert all(one.packed_refs is None and one.refs_path for one in staged)
    assert [one.unit_id for one in staged] == [one.unit_id for one in carried]
    selection = Selection(options.selection)
    for there, here in zip(staged, carried, strict=True):
        assert list(open_unit(there, options, selection)) == list(open_unit(here, options, selection))
        assert skip_unit(there, options, selection) == skip_unit(here, options, selection)
    storage.delete_tree(storage.join(staging, "references"))
    with pytest.raises(FileNotFoundError, match="references/00000"):
        list(open_unit(staged[0], options, selection))


@pytest.mark.parametrize("input_format", ["text", "images"])
def test_a_job_is_the_same_and_resumes_the_same_with_staged_references(
    tmp_path, monkeypatch, cut_off, opened, input_format
):
    paths = photos(tmp_path / "photos", 10)
    paths[4].write_bytes(b"no image")
    uris = uri_list(tmp_path / "list.txt", paths) if input_format == "text" else tmp_path / "photos"
    arguments = ("--input", uris, "--input_format", input_format, "--shard_rows", 3, "--max_error_rate", 1)
    expected = label(tmp_path / "carried", *arguments)
    monkeypatch.setattr(packed_refs, "CARRIED_BYTES", 0)
    assert cut_off(tmp_path / "staged", *arguments, "--if_exists", "resume").code == 3
    assert len(list(tmp_path.glob("_beamlabel-*/staging/*/references/*"))) == 4
    opened.clear()
    job = label(tmp_path / "staged", *arguments, "--if_exists", "resume")
    assert job.code == 0 and len(opened) == 2 and all(unit.refs_path for unit in opened)
    assert job.rows == expected.rows and len(job.rows) == 9
    assert job.failures == expected.failures
    assert [f["sha256"] for f in job.manifest["files"]] == [f["sha256"] for f in expected.manifest["files"]]
    assert not list(tmp_path.glob("_beamlabel-*/staging/*")), "published: no staged file is left"
