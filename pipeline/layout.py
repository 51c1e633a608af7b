"""Names of what a run leaves in its output folder.

Everything that is not a data shard starts with ``_``, so that pyarrow, pandas, Spark, DuckDB and BigQuery read
the folder as one table. What is not a result lies below one name, and carries a mark of ours in its content: only
that is ever deleted.
"""

# Results.
MANIFEST = "_MANIFEST.json"
SUCCESS = "_SUCCESS"
SCHEMA_PBTXT = "_schema.pbtxt"
FAILURES = "_failures"
UNCHANGED = "_unchanged"
DELETED = "_deleted"
# The folders of files, by their kind in the manifest; data lies in the output itself.
FOLDERS = {"data": "", "failures": f"{FAILURES}/", "unchanged": f"{UNCHANGED}/", "deleted": f"{DELETED}/"}
REPORT = "_report.html"
# Beside a module that `beamlabel train` wrote.
TRAINING = "_TRAINING.json"

# What is no result, in the output. That of an output that does not exist yet lies beside its place, in a folder
# whose name begins the same, see ``staging``.
OWN = "_beamlabel"
# Below _beamlabel/:
LOCK = "lock"
STAGING = "staging"
# Where --if_exists resume may go on after what is published: the records of what is done.
UNITS = "units.json"
# Below _beamlabel/staging/<plan id>/:
JOB = "job.json"
ARTIFACT = "module.beamlabel"
HEAD = "head.beamlabel"
LABELED = "labeled.keys"
FAILED = "failed.keys"
LIVE = "live.keys"
LIVE_SHARDS = "live.json"
FEATURES = "features.keys"
FEATURE_SHARDS = "features.json"
ONLY = "only.keys"
METRICS = "metrics.json"
COMMIT = "commit.json"
UNIT_RECORDS = "units"
MOVES = "publish.json"
# The whole result of a run that is staged beside its output.
RESULT = "result"

# The marks: what "format" says in these JSON objects.
JOB_FORMAT = "beamlabel job"
LOCK_FORMAT = "beamlabel lock"
COMMIT_FORMAT = "beamlabel commit"
UNITS_FORMAT = "beamlabel units"

# Names of the versions that wrote schema version 1 and had no folder of their own; of a local output beside its place,
# the first two with a hash behind them.
EARLIER_STAGING = "_staging"
EARLIER_LOCK = "_LOCK"
EARLIER_UNITS = "_UNITS.json"
