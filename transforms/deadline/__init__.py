"""Ends a worker process whose batch hangs in native code, and records the batch's images."""
