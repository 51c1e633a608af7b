"""Input files → units → references."""
