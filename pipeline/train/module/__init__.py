"""Writes a base and a head as a SavedModel."""
