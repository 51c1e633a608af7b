"""The current table, built in DuckDB with the SQL of docs/nightly.md."""

import re
from collections.abc import Iterable
from pathlib import Path

import duckdb

from support.paths import ROOT

_PAGE = (ROOT / "docs" / "nightly.md").read_text()
_EMPTY = {
    "deleted": "SELECT NULL::VARCHAR AS image_id, NULL::TIMESTAMPTZ AS deleted_at WHERE false",
    "failures": "SELECT NULL::VARCHAR AS image_id, NULL::TIMESTAMPTZ AS failed_at, NULL::VARCHAR AS reason, "
    "NULL::VARCHAR AS content_hash, NULL::BIGINT AS source_bytes, NULL::VARCHAR AS source_version WHERE false",
}


def current_view(outputs: Iterable[Path]) -> duckdb.DuckDBPyConnection:
    """A database with the page's view ``current_labels`` over outputs; with ``dt`` if their paths contain it."""
    outputs = list(outputs)
    files = {
        "labels": [str(path) for output in outputs for path in output.glob("part-*.parquet")],
        "deleted": [str(path) for output in outputs for path in output.glob("_deleted/part-*.parquet")],
        "failures": [str(path) for output in outputs for path in output.glob("_failures/part-*.jsonl")],
    }
    (block,) = [block for block in re.findall(r"```sql\n(.*?)```", _PAGE, re.DOTALL) if "read_json" in block]
    database = duckdb.connect()
    for name, body in re.findall(r"CREATE VIEW (\w+) AS\s(.*?);\n", block, re.DOTALL):
        if name in _EMPTY and not files[name]:
            body = _EMPTY[name]
        elif name in files:
            # The path that the page names in a bucket.
            body, count = re.subn(r"\[\s*'gs://[^\]]*\]|'gs://[^']*'", repr(files[name]), body)
            assert count == 1
            if not all(output.name.startswith("dt=") for output in outputs):
                body = body.replace(", hive_partitioning = true", "")
        database.execute(f"CREATE VIEW {name} AS {body}")
    return database
