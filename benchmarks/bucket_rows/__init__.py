"""The rows of ``benchmarks/requests.py``, and the command that runs and prints them."""

from bucket_rows import reading, storing
from bucket_rows.bench import main

__all__ = ["main", "reading", "storing"]
