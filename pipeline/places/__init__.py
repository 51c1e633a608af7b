"""Directories and files that this process will write, checked before any work."""
