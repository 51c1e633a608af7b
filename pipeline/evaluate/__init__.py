"""Compares labels with the truth."""
