"""Worker processes of a local run: their number, start, end and units."""
