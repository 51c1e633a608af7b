"""Worker processes of a local run: how many, their start and end, and who gets which unit."""
