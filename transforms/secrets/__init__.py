"""Credentials: their names, and their removal from text before it leaves the process."""
