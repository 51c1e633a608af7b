"""A batch that hangs in native code: its worker process is ended, and what it was at is remembered."""
