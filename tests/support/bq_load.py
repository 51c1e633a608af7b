"""Checks the arguments of ``bq load``, and loads JSON lines with DuckDB in its place."""

import pyarrow.parquet as pq


def flags(arguments):
    return dict(word[2:].partition("=")[::2] for word in arguments if word.startswith("--"))


def load_failures(database, mirrored, arguments):
    """Loads failures with exactly the columns that bq gets."""
    *_, table, uris, columns = arguments
    assert flags(arguments[:-3]) == {"source_format": "NEWLINE_DELIMITED_JSON", "ignore_unknown_values": ""}
    files = [mirrored(uri) for uri in uris.split(",")]
    types = {"STRING": "VARCHAR", "INTEGER": "BIGINT", "TIMESTAMP": "TIMESTAMPTZ"}
    told = {name: types[kind] for name, _, kind in (column.partition(":") for column in columns.split(","))}
    database.execute(f"CREATE TABLE IF NOT EXISTS {table} ({', '.join(map(' '.join, told.items()))})")
    database.execute(
        f"INSERT INTO {table} SELECT * FROM read_json({files}, columns = {told}, hive_partitioning = false)"
    )


def check_lists(file):
    """Checks that list columns have three levels, as BigQuery's array inference requires."""
    metadata = pq.read_metadata(file)
    paths = {metadata.schema.column(number).path for number in range(metadata.num_columns)}
    assert {"labels.list.element", "scores.list.element", "embedding.list.element"} <= paths
