"""The package that ``--setup_file ./setup.py`` ships to the workers; its metadata is in pyproject.toml."""

from setuptools import setup

setup()
