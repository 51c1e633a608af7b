"""What differs between two sets of outputs."""
