"""beamlabel's labeling job: options, the graph, and what a run leaves behind."""

from transforms import __version__ as __version__
