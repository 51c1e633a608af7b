"""Results of earlier runs, and their use in a new run."""
