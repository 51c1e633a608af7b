"""WebDataset samples and their kept columns."""

from __future__ import annotations

from typing import Any

import pyarrow as pa
import pytest

from beamlabel.transforms.inputs.archives.entries import ArchiveError, Entry
from beamlabel.transforms.inputs.archives.samples import (
    KeptMember,
    LookedAt,
    SeenValues,
    in_samples,
    kept_values,
    key_and_extension,
)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("000.jpg", ("000", "jpg")),
        ("train/000.left.JPG", ("train/000", "left.jpg")),
        ("v1.0/000.jpg", ("v1.0/000", "jpg")),
        ("plain", None),
        ("a/.hidden", None),
        ("a.", ("a", "")),
    ],
)
def test_keys_and_extensions(name: str, expected: tuple[str, str] | None) -> None:
    assert key_and_extension(name) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("cls", ("cls", "cls", None)),
        ("CLS=truth", ("truth", "cls", None)),
        ("json", ("json", "json", None)),
        ("json.caption=caption", ("caption", "json", "caption")),
        ("meta.json.exif.Make", ("meta.json.exif.Make", "meta.json", "exif.Make")),
        ("left.txt", ("left.txt", "left.txt", None)),
        ("__key__=key", ("key", "__key__", None)),
    ],
)
def test_what_is_kept(text: str, expected: tuple[str, str, str | None]) -> None:
    kept = KeptMember.parse(text)
    assert (kept.name, kept.extension, kept.field) == expected


@pytest.mark.parametrize("text", ["", "=x", "cls=", "json.", ".cls", "a..b"])
def test_what_names_no_member(text: str) -> None:
    with pytest.raises(ValueError, match="keep_columns"):
        KeptMember.parse(text)


def looked_at(name: str, data: bytes | None = None) -> LookedAt[None]:
    return LookedAt(Entry(name, len(data or b""), 0), data, None)


def test_members_of_a_sample_follow_each_other() -> None:
    names = ["a.jpg", "a.json", "b.jpg", "directory/b.jpg", "plain", "a.jpg"]
    groups = in_samples(map(looked_at, names), grouped=True)
    assert [len(group) for group in groups] == [2, 1, 1, 1, 1]
    assert all(len(group) == 1 for group in in_samples(map(looked_at, names), grouped=False))


JSON = b'{"a": 1, "b": {"c": "\xc3\xbc"}, "b.c": null, "d.e": true, "f": [1, "x"], "g": 0.5}'


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("json.a", 1),
        ("json.b", '{"c": "ü"}'),
        ("json.b.c", None),
        ("json.d.e", True),
        ("json.f", '[1, "x"]'),
        ("json.g", 0.5),
        ("json.a.b", None),
        ("json.none", None),
        ("json", JSON.decode()),
        ("cls", " 7\n"),
        ("txt", None),
        ("__key__", "s"),
    ],
)
def test_values(source: str, expected: Any) -> None:
    group = [looked_at("s.cls", b" 7\n"), looked_at("s.jpg"), looked_at("s.json", JSON)]
    (value,) = kept_values(group, [KeptMember.parse(source)])
    assert value == expected
    assert type(value) is type(expected)


@pytest.mark.parametrize("data", [b"{", b"\xff", b'{"x": "\\ud800"}', b"[" * 100_000])
def test_values_that_are_none(data: bytes) -> None:
    with pytest.raises(ArchiveError):
        kept_values([looked_at("s.json", data)], [KeptMember.parse("json.x")])


def test_two_members_of_one_extension() -> None:
    group = [looked_at("s.txt", b"1"), looked_at("s.TXT", b"2")]
    with pytest.raises(ArchiveError):
        kept_values(group, [KeptMember.parse("txt")])


@pytest.mark.parametrize(
    ("source", "values", "kind"),
    [
        ("cls", ["1", " 2\n", None], pa.int64()),
        ("cls", ["0", "-3"], pa.int64()),
        ("id", ["1", "007"], pa.string()),
        ("id", ["1", "+7"], pa.string()),
        ("cls", ["1", "cat"], pa.string()),
        ("cls", [str(2**63)], pa.string()),
        ("cls", [None], pa.string()),
        ("txt", ["1"], pa.string()),
        ("json.a", [1, None], pa.int64()),
        ("json.a", [1, 0.5], pa.float64()),
        ("json.a", [2**60], pa.int64()),
        ("json.a", [True, None], pa.bool_()),
        ("json.a", ["x"], pa.string()),
        ("json.a", [None], pa.string()),
    ],
)
def test_one_type_for_all_values(source: str, values: list[Any], kind: pa.DataType) -> None:
    seen = [SeenValues(KeptMember.parse(source)) for _ in values]
    for one, value in zip(seen, values, strict=True):
        one.add(value, "a.tar#s", "parquet")
        seen[0].merge(one)
    assert seen[0].type() == kind


@pytest.mark.parametrize(
    ("values", "output_format"),
    [
        ([1, "x"], "parquet"),
        ([True, 1], "parquet"),
        ([2**63], "parquet"),
        ([2**53 + 1, 0.5], "parquet"),
        ([0.1], "tfrecord"),
        ([1e300], "tfrecord"),
    ],
)
def test_values_that_no_type_holds(values: list[Any], output_format: str) -> None:
    seen = SeenValues(KeptMember.parse("json.a"))
    for value in values:
        seen.add(value, "a.tar#s", output_format)
    with pytest.raises(ValueError, match=r"a\.tar#s"):
        seen.type()
