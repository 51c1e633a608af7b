"""Options → the graph."""
