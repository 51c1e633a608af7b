"""Made-up rows for a training: features from Gaussian clouds, and their metadata."""

import hashlib

import numpy as np
import pyarrow as pa

from beamlabel.pipeline.train.rows.base import BaseOutput
from beamlabel.pipeline.train.rows.rows import TrainingRows
from beamlabel.pipeline.train.rows.split import content_order, split_by_content


def clouds(rows, dimension, classes, *, apart, seed=0):
    """float32[rows, dimension] and int32[rows]: a Gaussian cloud for each class, on axes of different scale."""
    rng = np.random.default_rng(seed)
    centers = rng.normal(size=(classes, dimension)) * apart / np.sqrt(dimension)
    scales = rng.lognormal(0, 1, dimension)
    targets = rng.integers(classes, size=rows)
    features = (centers[targets] + rng.normal(size=(rows, dimension))) * scales + rng.normal(size=dimension)
    return features.astype(np.float32), targets.astype(np.int32)


def training_rows(targets, *, seed=0, shares=(0.6, 0.2, 0.2), names=None):
    """``TrainingRows`` of different images."""
    count, multi_label = len(targets), targets.ndim == 2
    contents = [hashlib.blake2b(b"%d" % number, digest_size=16).hexdigest() for number in range(count)]
    strata = targets.argmax(axis=1) if multi_label else targets
    order = content_order(contents, seed)
    classes = targets.shape[1] if multi_label else int(targets.max()) + 1
    return TrainingRows(
        table=pa.table(
            {
                "uri": [f"{number}.jpg" for number in range(count)],
                "image_id": contents,
                "content_hash": contents,
                "location": pa.nulls(count, pa.string()),
            }
        ),
        classes=names or tuple(f"class {number}" for number in range(classes)),
        targets=targets,
        split=split_by_content(order, np.arange(count), strata.astype(np.int64), shares),
        multi_label=multi_label,
        problems=(),
        base=BaseOutput("f" * 64, "base", "f:features", "id", 0, False, {}, {}),
        shards=(),
        shard=np.zeros(count, np.int32),
        row=np.arange(count),
        read=count,
        seed=seed,
    )
