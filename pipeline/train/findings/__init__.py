"""The findings of a training, computed from its probabilities."""
