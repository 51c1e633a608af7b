"""Readers of single formats: they turn bytes and ``DecodeOptions`` into a ``Picture``."""
