"""Writing: a work unit → staged files and its record."""
