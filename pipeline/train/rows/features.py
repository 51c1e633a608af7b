"""The embeddings of the rows, in a scratch file that is read often and bounds the memory."""

from __future__ import annotations

import numpy as np

from beamlabel.pipeline.errors import UsageError
from beamlabel.pipeline.train.rows.rows import TrainingRows
from beamlabel.pipeline.train.rows.scratch import scratch
from beamlabel.pipeline.train.rows.shards import embeddings


def features_of(rows: TrainingRows) -> np.ndarray:
    """Streams the embeddings of all rows into a file without a name, which vanishes with the array.

    Returns:
      float32[N, D], mapped; in the directory of ``tempfile``, which TMPDIR sets.

    Raises:
      UsageError: the disk has too little space, or an embedding is NaN or infinite.
      OSError, ValueError: a file cannot be read, or was changed meanwhile.
    """
    dimension = rows.base.embedding_dim
    features = scratch(len(rows), dimension)
    by_place = np.lexsort((rows.row, rows.shard))
    starts = np.searchsorted(rows.shard[by_place], np.arange(len(rows.shards) + 1))
    for number, path in enumerate(rows.shards):
        places = by_place[starts[number] : starts[number + 1]]
        wanted = rows.row[places]
        first = done = 0
        for block in embeddings(path, dimension) if len(wanted) else ():
            stop = int(np.searchsorted(wanted, first + len(block)))
            chosen = block[wanted[done:stop] - first]
            is_finite = np.isfinite(chosen).all(axis=1)
            if not is_finite.all():
                uri = rows.table.column("uri")[int(places[done + int(is_finite.argmin())])].as_py()
                raise UsageError(f"{path}: the embedding of {uri} is NaN or infinite: label the image again")
            features[places[done:stop]] = chosen
            done, first = stop, first + len(block)
            if done == len(wanted):
                break
        if done != len(wanted):
            raise ValueError(f"{path} has {first} rows now but had more: it was changed meanwhile")
    return features
