"""Modules written by ``beamlabel train``: a base network and a head for custom classes."""
