"""Helpers for object stores: content types, checksums, ranges, listings, and batch requests."""
