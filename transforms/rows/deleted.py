"""The columns of ``_deleted/part-*.parquet``: images of earlier outputs that the input no longer names."""

from __future__ import annotations

import pyarrow as pa

DELETED_SCHEMA = pa.schema(
    [
        pa.field("image_id", pa.string(), nullable=False),
        pa.field("uri", pa.string(), nullable=False),
        pa.field("ref_id", pa.string()),
        pa.field("deleted_at", pa.timestamp("us", "UTC"), nullable=False),
        pa.field("run_id", pa.string(), nullable=False),
    ]
)
"""``uri`` and ``ref_id`` are those of the newest row; ``deleted_at`` is the start of the run ``run_id``."""
