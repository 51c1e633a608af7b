"""A worker process: its threads, memory, counters and versions."""
