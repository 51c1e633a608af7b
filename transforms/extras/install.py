"""The one place for how messages say to install an extra: the project is not on PyPI."""

from __future__ import annotations


def install_extra(extra: str) -> str:
    """The command that installs an extra of beamlabel, such as ``aws``, and where to run it."""
    return f"pip install '.[{extra}]' in the beamlabel checkout"
