"""Computes answers with an artifact: the worker's side."""
