"""The current rows of many outputs: the newest outcome of each image."""
