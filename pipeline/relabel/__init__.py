"""Earlier outputs as the input of a run: their rows get the classes of another head."""
