"""Loads a module in a separate process with a deadline and a memory limit."""
