"""One file for each kind of input: its units, and their references."""
