"""The install instructions in messages, in one place, since the project is not on PyPI."""

from __future__ import annotations


def install_extra(extra: str) -> str:
    """The command that installs an extra of beamlabel, such as ``aws``, and the directory to run it in."""
    return f"pip install '.[{extra}]' in the beamlabel checkout"
