"""Names of what a run leaves in its output folder.

Everything that is not a data shard starts with ``_``, so that pyarrow, pandas, Spark and DuckDB read
the folder as one table.
"""

MANIFEST = "_MANIFEST.json"
SUCCESS = "_SUCCESS"
SCHEMA_PBTXT = "_schema.pbtxt"
FAILURES = "_failures"
REPORT = "_report.html"

# Where --if_exists resume may go on after what is published: the records of what is done.
UNITS = "_UNITS.json"

LOCK = "_LOCK"
STAGING = "_staging"
# Below _staging/<plan id>/:
ARTIFACT = "module.beamlabel"
LABELED = "labeled.keys"
ONLY = "only.keys"
JOB = "job.json"
METRICS = "metrics.json"
COMMIT = "commit.json"
UNIT_RECORDS = "units"
MOVES = "publish.json"
# The whole result of a run that is staged beside its output.
RESULT = "result"
