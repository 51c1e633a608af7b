"""Rows: what is written, published, found again and deleted."""

from __future__ import annotations

from bucket_rows.bench import Bench, Figures, row
from support.committed import commit_run

_PUBLISH = """
from beamlabel.pipeline.output.publish import publish
from beamlabel.transforms import storage
storage.exists(sys.argv[1] + "/warm")
begin()
publish(*sys.argv[1:])
end()
"""


@row("publishing 10,000 shards")
def publish(bench: Bench) -> Figures:
    """From the commit to the deleted staging."""
    shards = bench.sized(10_000)
    folder = commit_run(bench.bucket, shards)
    figures = bench.python(_PUBLISH, bench.bucket.uri("out"), folder)
    names = [name for name in bench.bucket.list("out/") if name.startswith("out/part-")]
    assert len(names) == shards, len(names)
    return {"shards": shards, **figures}
