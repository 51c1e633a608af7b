"""Reusable Beam transforms for labeling images, one step a file. Never imports ``beamlabel.pipeline``."""
