"""beamlabel's labeling job: options, graph, and output of a run."""
