"""Many outputs → one with the current rows."""
