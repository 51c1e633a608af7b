"""One module for each kind of input: its units, and their references."""
