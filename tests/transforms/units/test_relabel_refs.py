"""Features of earlier rows: read from their file, used only if they belong to the image, never fatal."""

import dataclasses
import hashlib
import itertools
from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from beamlabel.transforms import storage
from beamlabel.transforms.inputs.selection import stat_hash
from beamlabel.transforms.records import EmbeddedRows, ImageRef
from beamlabel.transforms.rows.feature_places import EarlierShard, FeaturePlace, image_columns
from beamlabel.transforms.rows.record_batch import to_record_batch
from beamlabel.transforms.storage.identity import content_bits
from beamlabel.transforms.units import earlier_shards, relabel_refs
from beamlabel.transforms.units.earlier_shards import EarlierShards, listed
from beamlabel.transforms.units.relabel_refs import FeatureReader, RelabeledRefs
from beamlabel.transforms.writing.staged_files import write_data
from support.outputs import DIM, FULL, PLAIN, prediction

ROWS = 70
TONIGHT = (("customer", pa.int16()),)


def shard(directory, first, name, spec=FULL, rows=ROWS):
    """A data file of rows that start at a number."""
    spec = dataclasses.replace(
        spec,
        format="parquet" if name.endswith(".parquet") else "tfrecord",
        compression="gzip" if name.endswith(".gz") else "none",
    )
    path = directory / name
    with path.open("wb") as file:
        batches = (
            to_record_batch(
                [prediction(n, spec=spec) for n in range(start, min(start + 9, first + rows))], spec
            )
            for start in range(first, first + rows, 9)
        )
        write_data(file, batches, spec)
    return path


def opened(directory, *paths):
    """These files as the launcher opens them."""
    told = [storage.stat(str(path)) for path in paths]
    content = listed(DIM, [EarlierShard(one.path, one.size, one.version) for one in told])
    path = directory / f"{hashlib.sha256(content.encode()).hexdigest()}.json"
    path.write_text(content)
    return EarlierShards(str(path), hashlib.sha256(content.encode()).hexdigest())


def wanted(number, place, *, first=0, shard=0, **changes):
    """This run's reference to the image of a row, and the location of its features."""
    one = prediction(number)
    ref = dataclasses.replace(
        one.ref,
        ref_id=f"tonight#{place}",
        row=place,
        unit_id="unit",
        passthrough=(pa.array([place], pa.int16()),),
    )
    content = content_bits(one.info.content_hash)
    stat = stat_hash(one.info.source_bytes, one.info.source_version)
    features = FeaturePlace(shard, number - first, stat, content)
    return dataclasses.replace(ref, **changes), features, None


def read(shards, refs):
    """The results: the rows by position, and the references that are fetched."""
    relabeled = RelabeledRefs(FeatureReader(shards, TONIGHT), "unit")
    out = [one for ref in refs for one in relabeled.add(*ref)] + list(relabeled.flush())
    rows, fetched = {}, []
    for one in out:
        if isinstance(one, ImageRef):
            fetched.append(one.row)
            continue
        assert isinstance(one, EmbeddedRows) and one.unit_id == "unit"
        assert len(one.places) == one.batch.num_rows <= earlier_shards._BATCH_ROWS
        for place, row in zip(one.places.tolist(), one.batch.to_pylist(), strict=True):
            assert place not in rows
            rows[place] = row
    return rows, sorted(fetched)


def check(row, number, place):
    one = prediction(number)
    expected = to_record_batch([one], FULL).to_pylist()[0]
    names = ("uri", "image_id", "embedding", *image_columns().names)
    assert row == {
        **{name: expected[name] for name in names},
        "ref_id": f"tonight#{place}",
        "customer": place,
    }


@pytest.mark.parametrize("name", ["a.parquet", "a.tfrecord", "a.tfrecord.gz"])
@pytest.mark.parametrize("numbers", [[0], [69], [3, 4, 5, 50], list(range(0, 70, 7)), [9, 9, 20, 9]])
def test_rows_are_those_of_the_images(tmp_path, monkeypatch, name, numbers):
    monkeypatch.setattr("beamlabel.transforms.writing.staged_files.ROW_GROUP_BYTES", 1 << 12)
    monkeypatch.setattr(earlier_shards, "_BATCH_ROWS", 4)
    shards = opened(tmp_path, shard(tmp_path, 0, name))
    # The order of the input differs from that of the file.
    order = np.random.default_rng(0).permutation(len(numbers))
    refs = [wanted(numbers[at], place) for place, at in enumerate(order)]
    rows, fetched = read(shards, refs)
    assert fetched == [] and sorted(rows) == list(range(len(numbers)))
    for place, at in enumerate(order):
        check(rows[place], numbers[at], place)


def test_only_the_row_groups_of_wanted_rows_are_read_and_each_once(tmp_path, monkeypatch):
    monkeypatch.setattr("beamlabel.transforms.writing.staged_files.ROW_GROUP_BYTES", 1 << 11)
    path = shard(tmp_path, 0, "a.parquet")
    assert pq.ParquetFile(path).num_row_groups > 5
    groups = []
    batches = pq.ParquetFile.iter_batches

    def counted(file, *arguments, row_groups, **options):
        groups.extend(row_groups)
        return batches(file, *arguments, row_groups=row_groups, **options)

    monkeypatch.setattr(pq.ParquetFile, "iter_batches", counted)
    rows, _ = read(opened(tmp_path, path), [wanted(number, number) for number in (1, 60, 2, 61)])
    assert len(rows) == 4
    assert len(groups) == len(set(groups)) <= 4


def test_several_files_stay_open_as_many_as_may(tmp_path, monkeypatch):
    monkeypatch.setattr(earlier_shards, "_OPEN_FILES", 2)
    paths = [shard(tmp_path, 10 * n, f"{n}.parquet", rows=10) for n in range(4)]
    opens = Counter()
    open_input = storage.open_input

    def counted(path):
        opens[Path(path).name] += 1
        return open_input(path)

    monkeypatch.setattr(storage, "open_input", counted)
    shards = opened(tmp_path, *paths)
    reader = FeatureReader(shards, TONIGHT)
    for unit in range(2):
        held = [
            relabel_refs._Held(*wanted(10 * n + unit, 10 * n, first=10 * n, shard=n)) for n in (2, 3, 0, 1)
        ]
        assert sum(len(one.places) for one in reader.read("unit", held)) == 4
    # Read in the order of the files: the last two are still open when the first come again.
    assert opens == {"0.parquet": 2, "1.parquet": 2, "2.parquet": 2, "3.parquet": 2}
    held = [relabel_refs._Held(*wanted(10 * n + 5, n, first=10 * n, shard=n)) for n in (2, 3)]
    list(reader.read("unit", held))
    assert sum(opens.values()) == 8
    shards.close()


@pytest.mark.parametrize("name", ["a.parquet", "a.tfrecord"])
@pytest.mark.parametrize(
    "trouble", ["gone", "replaced", "shorter", "damaged", "other images", "other content"]
)
def test_in_doubt_the_image_is_fetched(tmp_path, name, trouble):
    path = shard(tmp_path, 0, name)
    shards = opened(tmp_path, path)
    refs = [wanted(number, number) for number in (3, 30, 69)]
    if trouble == "gone":
        path.unlink()
    elif trouble == "replaced":
        shard(tmp_path, 1, name)
    elif trouble == "shorter":
        shards = opened(tmp_path, shard(tmp_path, 0, name, rows=30))
    elif trouble == "damaged":
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
        shards = opened(tmp_path, path)
    elif trouble == "other images":
        shards = opened(tmp_path, shard(tmp_path, 1, name))
    else:
        refs = [(ref, features._replace(content=1), version) for ref, features, version in refs]
    rows, fetched = read(shards, refs)
    for place, row in rows.items():
        check(row, place, place)
    assert sorted([*rows, *fetched]) == [3, 30, 69]
    if trouble != "damaged" or name == "a.parquet":
        assert not rows


@pytest.mark.parametrize("value", [np.nan, -np.inf])
def test_features_that_are_no_numbers_are_computed_anew(tmp_path, value):
    embedding = prediction(2).embedding.copy()
    embedding[3] = value
    spec = dataclasses.replace(PLAIN, kept_fields=())
    broken = [prediction(n, spec=spec) for n in range(5)]
    broken[2] = dataclasses.replace(broken[2], embedding=embedding)
    path = tmp_path / "a.parquet"
    with path.open("wb") as file:
        write_data(file, [to_record_batch(broken, spec)], spec)
    rows, fetched = read(opened(tmp_path, path), [wanted(number, number) for number in range(5)])
    assert (sorted(rows), fetched) == ([0, 1, 3, 4], [2])


def test_other_columns_are_not_read(tmp_path):
    spec = dataclasses.replace(PLAIN, embedding_dim=DIM, kept_fields=())
    table = pa.Table.from_batches([to_record_batch([prediction(n, spec=spec) for n in range(5)], spec)])
    path = tmp_path / "a.parquet"
    pq.write_table(
        table.set_column(table.schema.get_field_index("width"), "width", pa.array([1.5] * 5)), path
    )
    assert read(opened(tmp_path, path), [wanted(1, 1)]) == ({}, [1])


def test_a_file_that_cannot_be_read_is_not_tried_again(tmp_path, monkeypatch):
    path = shard(tmp_path, 0, "a.parquet")
    shards = opened(tmp_path, path)
    path.unlink()
    reader = FeatureReader(shards, TONIGHT)
    held = [relabel_refs._Held(*wanted(1, 1))]
    assert [one.row for one in reader.read("unit", held)] == [1]
    monkeypatch.setattr(shards, "rows", None)
    assert [one.row for one in reader.read("unit", held)] == [1]


def test_the_version_now_takes_the_place_of_the_version_then(tmp_path):
    """Otherwise the next run could not recognize the image."""
    ref, features, _ = wanted(4, 0)
    rows, _ = read(
        opened(tmp_path, shard(tmp_path, 0, "a.parquet")), [(ref, features, "touched"), wanted(5, 1)]
    )
    assert rows[0]["source_version"] == "touched"
    assert rows[1]["source_version"] == prediction(5).info.source_version


def test_few_references_wait_and_few_bytes(tmp_path, monkeypatch):
    """This holds for every unit size; inline images wait with their bytes."""
    monkeypatch.setattr(relabel_refs, "_HELD_REFS", 10)
    monkeypatch.setattr(relabel_refs, "_HELD_BYTES", 1000)
    shards = opened(tmp_path, shard(tmp_path, 0, "a.parquet"))
    for size, most in ((0, 10), (300, 4), (2000, 1)):
        relabeled = RelabeledRefs(FeatureReader(shards, TONIGHT), "unit")
        waiting, longest, out = 0, 0, 0
        for number in itertools.islice(itertools.cycle(range(ROWS)), 200):
            waiting += 1
            ref, *place = wanted(number, number)
            ref = dataclasses.replace(ref, data=bytes(size) if size else None)
            longest = max(longest, waiting)
            if came := sum(len(one.places) for one in relabeled.add(ref, *place)):
                assert came == waiting
                out, waiting = out + came, 0
        out += sum(len(one.places) for one in relabeled.flush())
        assert (out, longest) == (200, most)
