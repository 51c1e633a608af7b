"""Names of what a run leaves in its output folder.

Everything that is not a data shard starts with ``_``, so that pyarrow, pandas, Spark and DuckDB read
the folder as one table.
"""

MANIFEST = "_MANIFEST.json"
SUCCESS = "_SUCCESS"
SCHEMA_PBTXT = "_schema.pbtxt"
FAILURES = "_failures"
REPORT = "_report.html"

# While a run is cut off by --time_limit: the records of what is done, for --if_exists resume.
INCOMPLETE = "_INCOMPLETE.json"

LOCK = "_LOCK"
STAGING = "_staging"
# Below _staging/<plan id>/:
ARTIFACT = "module.beamlabel"
LABELED = "labeled.keys"
ONLY = "only.keys"
JOB = "job.json"
METRICS = "metrics.json"
COMMIT = "commit.json"
MOVES = "publish.json"
# The whole result of a run that is staged beside its output.
RESULT = "result"
