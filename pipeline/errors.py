"""The exception for a user's mistake."""

from __future__ import annotations


class UsageError(Exception):
    """A mistake in the options, found before the run (exit code 2). The message names option and value."""
