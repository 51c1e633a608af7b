"""Folders and files that this process will write, looked at before it does any work."""
