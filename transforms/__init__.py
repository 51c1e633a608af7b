"""Reusable Beam transforms for labeling images, one step a file. Never imports ``pipeline``."""

__version__ = "0.1.0"
