"""Names of what a run leaves in its output folder.

Everything that is not a data shard starts with ``_``, so that pyarrow, pandas, Spark and DuckDB read
the folder as one table.
"""

MANIFEST = "_MANIFEST.json"
SUCCESS = "_SUCCESS"
SCHEMA_PBTXT = "_schema.pbtxt"
FAILURES = "_failures"
REPORT = "_report.html"

STAGING = "_staging"
# Below _staging/<plan id>/:
ARTIFACT = "module.beamlabel"
JOB = "job.json"
METRICS = "metrics.json"
COMMIT = "commit.json"
MOVES = "publish.json"
