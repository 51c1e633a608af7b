"""Reusable Beam transforms for labeling images, one step per file. Never imports ``beamlabel.pipeline``."""
