"""Modules that ``beamlabel train`` wrote: a base network and a head for classes of one's own."""
