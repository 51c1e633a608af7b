"""The rows of a training: published rows with a truth, and their features."""
