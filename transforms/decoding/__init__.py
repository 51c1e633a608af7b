"""Bytes → pixels."""
