"""Names of the files in a run's output directory.

Every file other than the shards starts with ``_``, so that pyarrow, pandas, Spark, DuckDB and BigQuery read the
directory as one table. Files that are not results are below one name and have our mark in their content. A run deletes
only such files.
"""

# Results.
MANIFEST = "_MANIFEST.json"
SUCCESS = "_SUCCESS"
SCHEMA_PBTXT = "_schema.pbtxt"
FAILURES = "_failures"
UNCHANGED = "_unchanged"
DELETED = "_deleted"
# Subdirectories of files, by their kind in the manifest; data is in the output itself.
DIRECTORIES = {"data": "", "failures": f"{FAILURES}/", "unchanged": f"{UNCHANGED}/", "deleted": f"{DELETED}/"}
REPORT = "_report.html"
# In the directory of a module that `beamlabel train` wrote.
TRAINING = "_TRAINING.json"

# Directory in the output for files that are not results. For an output that does not exist yet, it is beside its place,
# with a hash appended to its name, see ``staging``.
OWN = "_beamlabel"
# Below _beamlabel/:
LOCK = "lock"
STAGING = "staging"
# Records of finished units, with which --if_exists resume continues after a published result.
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
# The complete result of a run that is staged beside its output.
RESULT = "result"

# Our marks: the values of "format" in these JSON objects.
JOB_FORMAT = "beamlabel job"
LOCK_FORMAT = "beamlabel lock"
COMMIT_FORMAT = "beamlabel commit"
UNITS_FORMAT = "beamlabel units"

# Names in versions that wrote schema version 1 and had no directory of their own. For a local output, they are beside
# its place, and the first two have a hash appended.
EARLIER_STAGING = "_staging"
EARLIER_LOCK = "_LOCK"
EARLIER_UNITS = "_UNITS.json"
