"""Options → the graph, and what earlier runs mean for it."""
