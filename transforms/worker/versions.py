"""Stops a worker whose versions differ from the launcher's, before it reads anything.

When a worker sets up a stage, Beam compares its own version and Python's minor version, but not beamlabel's.
``WorkUnit``s and ``UnitRecord``s cross process boundaries in the job, so every stage of the graph begins or ends with
their coder. A stage is set up from its end to its beginning, coders first. So this coder is unpickled before the
stage's functions, some of which another version may lack. Unpickling it compares the versions.
"""

from __future__ import annotations

import sys
from dataclasses import astuple, dataclass
from typing import Any

from apache_beam.coders import FastPrimitivesCoder
from apache_beam.version import __version__ as beam_version

from beamlabel import __version__


class VersionError(RuntimeError):
    """The worker's versions differ from the launcher's; the message names both."""


@dataclass(frozen=True)
class Versions:
    """The versions that must match, since the launcher pickles code and the worker unpickles it."""

    beamlabel: str
    beam: str
    python: str

    def __str__(self) -> str:
        return f"beamlabel {self.beamlabel}, Apache Beam {self.beam} and Python {self.python}"


def versions() -> Versions:
    """The versions of this process; Python's without the patch release."""
    return Versions(__version__, beam_version, f"{sys.version_info.major}.{sys.version_info.minor}")


class SameVersionsCoder(FastPrimitivesCoder):
    """Beam's coder for any object, which only a worker of the launcher's versions can unpickle."""

    def __reduce__(self) -> tuple[Any, ...]:
        # Plain strings, so that a worker of any version can unpickle them.
        return _checked_coder, astuple(versions())


def _checked_coder(*launchers: str) -> SameVersionsCoder:
    """Raises ``VersionError`` in a worker of other versions."""
    launcher, worker = Versions(*launchers), versions()
    if worker != launcher:
        raise VersionError(
            f"This worker has {worker}, but the launcher has {launcher}. "
            "Install the launcher's versions in the workers' environment."
        )
    return SameVersionsCoder()
