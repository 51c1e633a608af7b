"""Compares two sets of outputs."""
