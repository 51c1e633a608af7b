"""``LabelImages`` for Beam YAML, where a pipeline is a YAML text.

``provider.yaml`` declares the type ``LabelImages``.
"""

from importlib import resources

PROVIDER = str(resources.files(__name__) / "provider.yaml")
"""Path of the provider file, for ``providers: - include:`` in a pipeline."""
