"""Predictions → Arrow."""
