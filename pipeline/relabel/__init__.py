"""Earlier outputs as the input of a run that labels their rows with another head."""
