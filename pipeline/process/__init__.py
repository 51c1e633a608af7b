"""The command's own process: signals, exit codes, streams, identity."""
