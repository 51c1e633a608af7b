"""Input files → units → references, and the records of finished units."""
