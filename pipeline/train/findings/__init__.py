"""What a training found out, from the probabilities that it gives."""
