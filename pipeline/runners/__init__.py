"""Beam's runners before, during and after the submission."""
