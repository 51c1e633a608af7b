"""Readers of single formats: bytes and ``DecodeOptions`` → ``Picture``."""
