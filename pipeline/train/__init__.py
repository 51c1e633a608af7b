"""``beamlabel train``: own classes on top of a module."""
