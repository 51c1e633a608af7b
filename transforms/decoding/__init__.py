"""Bytes → pixels, in this process or in a child with limits."""
