"""CSV, TSV and JSON lines: their text, records, columns, and the types of these."""
