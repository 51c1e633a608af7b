"""A base and a head → the files of a SavedModel."""
