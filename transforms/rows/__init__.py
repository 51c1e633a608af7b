"""Rows: predictions → Arrow, Parquet and TFRecord."""
