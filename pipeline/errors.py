"""The mistake of a user."""

from __future__ import annotations


class UsageError(Exception):
    """A mistake in the options, seen before the run: exit code 2. The message names option and value."""
