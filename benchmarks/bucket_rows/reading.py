"""Rows of listing, planning and reading."""

from __future__ import annotations

import hashlib
import io
import random

import pyarrow as pa
import pyarrow.parquet as pq

from bucket_rows.bench import Bench, Figures, row
from bucket_rows.many_names import ManyNames

_PLAN = """
from beamlabel.transforms import storage
from beamlabel.transforms.inputs.packed_refs import RefSpiller
from beamlabel.transforms.inputs.parquet_source import choose_columns, open_parquet
from beamlabel.transforms.inputs.selection import Selection
from beamlabel.transforms.inputs.sources.source import SourceOptions
from beamlabel.transforms.records import InputFile
from beamlabel.transforms.units.open_unit import open_unit
from beamlabel.transforms.units.plan_units import plan_files
path, staging, kept = sys.argv[1], sys.argv[2], sys.argv[3].split()
storage.exists(staging + "/warm")
begin()
with open_parquet(path) as file:
    columns = choose_columns(file.schema_arrow, uri="uri", image=None, kept=kept, path=path)
options = SourceOptions("/", columns)
spiller = RefSpiller(staging)
units = [spiller.spill(unit) for unit in plan_files([(0, InputFile(path, "parquet"))], options)]
selection = Selection(options.selection)
"""

_ALL_UNITS = """
refs = sum(1 for unit in units for _ in open_unit(unit, options, selection)) - len(units)
end()
tell(refs, "references")
tell(len(units), "units")
"""

_LATE_UNIT = """
refs = sum(1 for _ in open_unit(units[-2], options, selection)) - 1
end()
tell(refs, "references")
"""

_COLUMNS = """
from beamlabel.transforms import storage
from beamlabel.transforms.inputs.parquet_source import open_parquet
storage.exists(sys.argv[1] + "/warm")
begin()
with open_parquet(sys.argv[1]) as file:
    rows = sum(batch.num_rows for batch in file.iter_batches(512, columns=sys.argv[2].split()))
end()
tell(rows, "rows")
"""

_FILES = """
import apache_beam as beam
from apache_beam.runners.portability.fn_api_runner import FnApiRunner
from beamlabel.transforms import storage
from beamlabel.transforms.inputs.sources.source import SourceOptions
from beamlabel.transforms.records import InputFile
from beamlabel.transforms.units.plan_units import PlanUnits
files = [InputFile(file.path, "text", file.size) for file in storage.match(sys.argv[1] + "/")]
begin()
with beam.Pipeline(FnApiRunner()) as pipeline:
    pipeline | PlanUnits(files, SourceOptions("/"), sys.argv[2]) | beam.Reshuffle() | beam.Map(id)
end()
tell(len(files), "files")
"""

_LIST = """
import os, resource
os.environ["STORAGE_EMULATOR_HOST"] = sys.argv[2]
from beamlabel.transforms import storage
next(storage.match(sys.argv[1]))
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
begin()
count = sum(1 for _ in storage.match(sys.argv[1]))
end()
tell(count, "names")
tell((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1e3, "MB more memory")
"""


def _uris(count: int) -> list[str]:
    return [f"gs://photos/{hashlib.sha256(str(n).encode()).hexdigest()}.jpg" for n in range(count)]


def _put_table(bench: Bench, columns: dict[str, list[str]], **options: object) -> tuple[str, float]:
    """Stores a Parquet file; returns its URI, and the MB of ``uri``, ``label`` and ``caption``."""
    buffer = io.BytesIO()
    table = pa.table(columns)
    pq.write_table(table, buffer, row_group_size=table.num_rows, **options)
    metadata = pq.ParquetFile(buffer).metadata
    chunks = [
        metadata.row_group(group).column(place)
        for group in range(metadata.num_row_groups)
        for place in range(metadata.num_columns)
    ]
    size = sum(one.total_compressed_size for one in chunks if not one.path_in_schema.startswith("other"))
    return bench.bucket.put("in/list.parquet", buffer.getvalue()), size / 1e6


def _list(bench: Bench, program: str, **options: object) -> Figures:
    path, size = _put_table(bench, {"uri": _uris(bench.sized(1_000_000))}, **options)
    found = bench.python(_PLAN + program, path, bench.bucket.uri("staging"), "")
    return {"MB of URIs": size, **found}


@row("a Parquet list of URIs in one row group of 1 million: planned, and all units read (with staging)")
def one_group(bench: Bench) -> Figures:
    """A file as pyarrow writes it by default, without a page index."""
    return _list(bench, _ALL_UNITS)


@row("the same, with an index of large pages")
def one_group_indexed(bench: Bench) -> Figures:
    """Pages of 20,000 rows, as other writers make them."""
    return _list(bench, _ALL_UNITS, write_page_index=True, max_rows_per_page=20_000)


@row("the same, with an index of small pages")
def one_group_small_pages(bench: Bench) -> Figures:
    """Pages of 500 rows: each unit reads only its own pages."""
    return _list(bench, _ALL_UNITS, write_page_index=True, max_rows_per_page=500, use_dictionary=False)


@row("three columns of a Parquet file with three more")
def three_columns(bench: Bench) -> Figures:
    """Columns of ten megabytes and more."""
    rows = bench.sized(100_000)
    words = random.Random(1)
    other = {f"other{n}": [words.randbytes(60).hex() for _ in range(rows)] for n in range(3)}
    columns = {
        "other0": other["other0"], "uri": _uris(rows), "other1": other["other1"],
        "label": [words.randbytes(50).hex() for _ in range(rows)], "other2": other["other2"],
        "caption": [words.randbytes(100).hex() for _ in range(rows)],
    }  # fmt: skip
    path, size = _put_table(bench, columns)
    return {"MB of the columns": size, **bench.python(_COLUMNS, path, "uri label caption")}


@row("planning 16 text files of 20,000 URIs, references staged")
def many_files(bench: Bench) -> Figures:
    """Files that are too large to share units."""
    uris = _uris(bench.sized(20_000))
    for number in range(16):
        bench.bucket.put(f"in/{number:02}.txt", "\n".join(uris).encode())
    return bench.python(_FILES, bench.bucket.uri("in"), bench.bucket.uri("staging"))


@row("planning one text file of 1 million URIs, references staged")
def large_text(bench: Bench) -> Figures:
    """Units of up to 10,000 references."""
    bench.bucket.put("in/list.txt", "\n".join(_uris(bench.sized(1_000_000))).encode())
    return bench.python(_FILES, bench.bucket.uri("in"), bench.bucket.uri("staging"))


def _listing(bench: Bench, layout: str) -> Figures:
    """Lists a server with generated names, which waits and counts like the other server."""
    with ManyNames(layout, bench.sized(10_000_000), bench.delay) as server:
        figures = bench.python(_LIST, f"gs://many/{layout}/", server.url)
        return {**figures, "requests": server.requests - 1, "MB": server.sent / 1e6}


@row("listing 10 million objects: counters")
def list_counters(bench: Bench) -> Figures:
    """``00001234.jpg``."""
    return _listing(bench, "counters")


@row("listing 10 million objects: hashes in directories")
def list_hashes(bench: Bench) -> Figures:
    """``3f/a1/3fa1….jpg``."""
    return _listing(bench, "hashes")
