"""The files that a run has staged so far, read during the run."""

import os
from fnmatch import fnmatch
from pathlib import Path


def staged_files(beside: Path, pattern: str = "*") -> list[Path]:
    """The staged files of all runs beside a directory's outputs, by a pattern of the path below ``staging/RUN``.

    ``Path.glob`` raises if a directory disappears during the search, and directories of attempts may do so at any
    moment. ``os.walk`` skips it.

    Args:
      beside: The directory that holds the outputs.
      pattern: An ``fnmatch`` pattern (``*`` also matches ``/``), such as ``units/*.json``.
    """
    found = []
    for own in os.scandir(beside):
        if not own.name.startswith("_beamlabel"):
            continue
        staging = Path(own.path, "staging")
        for directory, _, names in os.walk(staging):
            paths = (Path(directory, name) for name in names)
            found += [path for path in paths if fnmatch(_below_run(path.relative_to(staging)), pattern)]
    return sorted(found)


def _below_run(path: Path) -> str:
    return "/".join(path.parts[1:])
