"""``LabelImages`` for Beam YAML, where a pipeline is a text.

``provider.yaml`` makes the type ``LabelImages`` known to it.
"""

from importlib import resources

PROVIDER = str(resources.files(__name__) / "provider.yaml")
"""Path of the provider file, for ``providers: - include:`` in a pipeline."""
