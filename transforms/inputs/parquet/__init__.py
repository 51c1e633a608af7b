"""How a Parquet file is read: its bytes once, and rows that are planned by whoever reads them."""
