"""A unit → staged files and its record."""
