"""CSV, TSV and JSON lines: their text, records, columns, and the columns' types."""
