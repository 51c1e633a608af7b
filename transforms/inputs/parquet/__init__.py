"""Reading of Parquet files: their bytes once, and their rows while units are planned."""
