"""Checks the directories and files that this process will write, before any work."""
