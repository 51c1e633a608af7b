"""Gathers the rows of outputs that have a truth, the newest of each image."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from beamlabel.pipeline.current.outputs import Output
from beamlabel.pipeline.earlier.rows import version_1_identity
from beamlabel.pipeline.output.manifest import dated
from beamlabel.pipeline.train.rows.shards import batches
from beamlabel.pipeline.truth.problem import Problem
from beamlabel.pipeline.truth.truth import Truth
from beamlabel.transforms.storage.identity import image_id
from beamlabel.transforms.storage.uris import resolve

_OWN = ("uri", "image_id", "content_hash", "labeled_at")
EXAMPLES = 5
"""Number of examples per problem."""


@dataclass(frozen=True, eq=False)
class Gathered:
    """Rows with a truth, the newest of each image, sorted by ``content_hash``, then by ``image_id``.

    Attributes:
      table: ``uri``, ``image_id``, ``content_hash``, ``location``, and ``split`` if a column has it.
      truths: int64[N], position of each row's classes in ``combinations``.
      combinations: distinct sets of classes, sorted.
      shards: the data files; ``shard`` and ``row``, int32[N] and int64[N], give the position of each row in them.
      read: number of rows in the outputs.
      problems: problems of the rows.
    """

    table: pa.Table
    truths: np.ndarray
    combinations: tuple[tuple[str, ...], ...]
    shards: tuple[str, ...]
    shard: np.ndarray
    row: np.ndarray
    read: int
    problems: tuple[Problem, ...]


class _Found:
    """Collected rows that have a truth."""

    def __init__(self) -> None:
        self.tables: list[pa.Table] = []
        self.codes: dict[tuple[str, ...], int] = {}
        self.shards: list[str] = []
        self.read = 0
        self.unknown: list[str] = []
        self.without_truth = 0


def gathered(outputs: Sequence[Output], truth: Truth, split_column: str | None) -> Gathered:
    """Reads the small columns of all rows.

    Args:
      outputs: the newest last.
      truth: receives each batch, in the order of outputs and files.
      split_column: column to keep as ``split``.

    Raises:
      OSError, ValueError: a file cannot be read.
    """
    found = _Found()
    for rank, output in enumerate(outputs):
        for file in output.files("data"):
            path = output.path(str(file["name"]))
            found.shards.append(path)
            _read_file(found, output, path, rank, truth, split_column)
    table = pa.concat_tables(found.tables).combine_chunks() if found.tables else _empty()
    kept, disagreeing = _newest(table)
    problems = [
        Problem("rows do not identify their image", len(found.unknown), tuple(found.unknown[:EXAMPLES])),
        Problem(
            "images occur twice in one run with different truths",
            len(disagreeing),
            tuple(disagreeing[:EXAMPLES]),
        ),
        Problem("rows have no truth", found.without_truth),
    ]
    # The order decides the batches: a training depends on the images alone, not on their directories.
    by_content = pa.compute.sort_indices(table.column("content_hash").take(pa.array(kept)))
    table = table.take(pa.array(kept).take(by_content))
    locations = _locations(table, outputs)
    columns = {
        **{name: table.column(name) for name in ("uri", "image_id", "content_hash")},
        "location": pa.array(locations, pa.string()),
        **({"split": table.column("split")} if split_column else {}),
    }
    return Gathered(
        table=pa.table(columns),
        truths=table.column("truth").to_numpy(),
        combinations=tuple(found.codes),
        shards=tuple(found.shards),
        shard=table.column("shard").to_numpy(),
        row=table.column("row").to_numpy(),
        read=found.read,
        problems=tuple(problem for problem in problems if problem.count),
    )


def _read_file(
    found: _Found, output: Output, path: str, rank: int, truth: Truth, split_column: str | None
) -> None:
    names = dict.fromkeys([*_OWN, *truth.columns, *([split_column] if split_column else [])])
    first, began = 0, dated(output.manifest)
    for batch in batches(output, path, tuple(names)):
        there, size = set(batch.schema.names), batch.num_rows
        classes = truth.of_batch(batch)
        is_one = np.fromiter((bool(one) for one in classes), bool, size)
        found.read += size
        found.without_truth += size - int(is_one.sum())
        uris = batch.column("uri").cast(pa.string())
        if "image_id" in there:
            ids = batch.column("image_id").cast(pa.string())
        else:
            ids = pa.array(
                [version_1_identity(uri, output.manifest) for uri in uris.to_pylist()], pa.string()
            )
            is_known = ids.is_valid().to_numpy(zero_copy_only=False)
            found.unknown += uris.filter(pa.array(is_one & ~is_known)).to_pylist()
            is_one &= is_known
        contents = batch.column("content_hash").cast(pa.string()) if "content_hash" in there else ids
        # A row without a content hash is not a copy of another.
        contents = pa.compute.if_else(pa.compute.equal(contents, ""), ids, pa.compute.coalesce(contents, ids))
        at = (
            batch.column("labeled_at").cast(pa.int64()) if "labeled_at" in there else pa.array([began] * size)
        )
        codes = [
            found.codes.setdefault(tuple(sorted(set(one))), len(found.codes)) if one else -1
            for one in classes
        ]
        columns = {
            "uri": uris, "image_id": ids, "content_hash": contents, "at": at,
            "rank": pa.array(np.full(size, rank, np.int32)),
            "shard": pa.array(np.full(size, len(found.shards) - 1, np.int32)),
            "row": pa.array(np.arange(first, first + size)),
            "truth": pa.array(codes, pa.int64()),
        }  # fmt: skip
        if split_column:
            told = batch.column(split_column) if split_column in there else pa.nulls(size)
            columns["split"] = told.cast(pa.string())
        found.tables.append(pa.table(columns).filter(pa.array(is_one)))
        first += size


def _empty() -> pa.Table:
    text, number = pa.string(), pa.int64()
    kinds = {"uri": text, "image_id": text, "content_hash": text, "split": text, "at": number, "rank": number,
             "shard": number, "row": number, "truth": number}  # fmt: skip
    return pa.table({name: pa.array([], kind) for name, kind in kinds.items()})


def _newest(table: pa.Table) -> tuple[np.ndarray, list[str]]:
    """The newest row of each image, by ``image_id``, and the URIs of images whose newest rows disagree."""
    ids = _halves(table.column("image_id"))
    at, rank = table.column("at").to_numpy(), table.column("rank").to_numpy()
    # Order ties by URI, so that the order of shards does not matter.
    uris = pa.compute.rank(table.column("uri"), tiebreaker="dense").to_numpy() if len(table) else at
    order = np.lexsort((uris, -rank.astype(np.int64), -at, ids[:, 1], ids[:, 0]))
    if not len(order):
        return order, []
    ids, at, rank = ids[order], at[order], rank[order]
    is_first = np.r_[True, (ids[1:] != ids[:-1]).any(axis=1)]
    head = np.maximum.accumulate(np.where(is_first, np.arange(len(order)), 0))
    is_newest = (at == at[head]) & (rank == rank[head])
    truths = table.column("truth").to_numpy()[order]
    wrong = np.unique(head[is_newest & (truths != truths[head])])
    kept = np.setdiff1d(np.flatnonzero(is_first), wrong)
    return order[kept], table.column("uri").take(pa.array(order[wrong])).to_pylist()


def _halves(ids: pa.ChunkedArray) -> np.ndarray:
    """uint64[N, 2] from strings of 32 hex digits."""
    found = []
    for chunk in ids.chunks:
        data = bytes.fromhex("".join(chunk.to_pylist()))
        found.append(np.frombuffer(data, ">u8").reshape(-1, 2).astype(np.uint64))
    return np.concatenate(found) if found else np.zeros((0, 2), np.uint64)


def _locations(table: pa.Table, outputs: Sequence[Output]) -> Iterator[str | None]:
    """Yields the location of each image; None if its row does not determine it, as for an inline image."""
    bases = [str(output.manifest["options"].get("base_dir") or "/") for output in outputs]
    for batch in table.select(["uri", "image_id", "rank"]).to_batches():
        for uri, identity, rank in zip(*(column.to_pylist() for column in batch.columns), strict=True):
            location = resolve(uri, bases[rank])
            yield location if image_id(location) == identity else None
