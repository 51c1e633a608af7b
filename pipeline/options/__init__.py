"""The command line, parsed once into frozen dataclasses."""
