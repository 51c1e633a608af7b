"""A base, own modules on it, and the base's results for images that no longer exist."""

from __future__ import annotations

import datetime as dt
import shutil
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from support.jobs import TINY, FinishedJob, label, photos

IMAGES, MISSING = 40, 2


@dataclass(frozen=True)
class Modules:
    """Paths of modules: a base, an own module on it, and one whose head normalizes."""

    base: str
    own: str
    normalizing: str


@dataclass(frozen=True)
class Labeled:
    """Results for the same images: by the base as Parquet and as TFRecords, and by the own module.

    ``nights`` is a directory with the first and another night, whose kept columns differ.
    """

    parquet: FinishedJob
    tfrecord: FinishedJob
    anew: FinishedJob
    nights: Path
    other_night: FinishedJob


@pytest.fixture(scope="package")
def modules(tmp_path_factory: pytest.TempPathFactory) -> Modules:
    pytest.importorskip("tensorflow")
    from support.own_modules import save_own

    directory = tmp_path_factory.mktemp("modules")
    cache = directory / "cache"
    own, normalizing = (
        save_own(directory / name, TINY, cache, normalizes=name == "normalizing")[0]
        for name in ("own", "normalizing")
    )
    return Modules(TINY, own, normalizing)


@pytest.fixture(scope="package")
def labeled(modules: Modules, tmp_path_factory: pytest.TempPathFactory) -> Labeled:
    directory = tmp_path_factory.mktemp("labeled")
    paths = photos(directory / "photos", IMAGES, size=(16, 12))
    first = _list(directory / "list.parquet", paths, pa.int16())
    second = _list(directory / "second.parquet", paths[:10], pa.int64(), note=True)
    for path in paths[:MISSING]:
        path.unlink()
    kept = ("--keep_columns", "customer", "taken", "tags", "--max_error_rate", 1, "--shard_rows", 12)
    nights = directory / "nights"
    found = Labeled(
        label(nights / "dt=1", "--input", first, *kept, module=modules.base),
        label(directory / "tf", "--input", first, *kept, "--output_format", "tfrecord",
              "--tfrecord_compression", "gzip", module=modules.base),
        label(directory / "anew", "--input", first, *kept, "--top_k", 2, module=modules.own),
        nights,
        label(nights / "dt=2", "--input", second, "--keep_columns", "note", "customer", "--max_error_rate", 1,
              "--output_format", "tfrecord", module=modules.base),
    )  # fmt: skip
    assert [one.code for one in (found.parquet, found.tfrecord, found.anew, found.other_night)] == [0] * 4
    shutil.rmtree(directory / "photos")
    return found


def _list(path: Path, paths: list[Path], kind: pa.DataType, *, note: bool = False) -> Path:
    """Writes a Parquet file of references with columns to keep."""
    rows = len(paths)
    days = [
        None if n % 7 == 0 else dt.datetime(2026, 1, 1 + n % 28, tzinfo=dt.timezone.utc) for n in range(rows)
    ]
    columns = {
        "uri": pa.array([str(path) for path in paths]),
        "customer": pa.array([None if n == 3 else n for n in range(rows)], kind),
        "taken": pa.array(days, pa.timestamp("ms", "UTC")),
        "tags": pa.array([["a"] * (n % 3) if n % 5 else None for n in range(rows)]),
    }
    if note:
        columns["note"] = pa.array([f"né {n}" for n in range(rows)])
    pq.write_table(pa.table(columns), path)
    return path
