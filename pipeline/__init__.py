"""beamlabel's labeling job: options, the graph, and what a run leaves behind."""
