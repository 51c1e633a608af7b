"""The rows that a training learns of: published rows with a truth, and their features."""
