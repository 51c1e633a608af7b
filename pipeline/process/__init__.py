"""This process: signals, exit codes, identity."""
