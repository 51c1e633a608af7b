"""``beamlabel train``: classes of one's own on top of a module."""
