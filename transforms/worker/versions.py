"""Worker and launcher agree: a worker of other versions stops before it reads anything.

Beam compares its own version and Python's minor one when a worker sets up a stage, and knows nothing of
beamlabel's. What crosses a process's border in the job are ``WorkUnit``s and ``UnitRecord``s, so every stage of the
graph begins or ends with their coder; and a stage is set up from its end to its beginning, coders first. So this
coder is unpickled before the stage's functions are, some of which another version may have no names for. To
unpickle it is to compare the versions.
"""

from __future__ import annotations

import sys
from dataclasses import astuple, dataclass
from typing import Any

from apache_beam.coders import FastPrimitivesCoder
from apache_beam.version import __version__ as beam_version

from beamlabel import __version__


class VersionError(RuntimeError):
    """This worker's versions are not the launcher's; the message names both."""


@dataclass(frozen=True)
class Versions:
    """What has to be the same: code is pickled here and unpickled there."""

    beamlabel: str
    beam: str
    python: str

    def __str__(self) -> str:
        return f"beamlabel {self.beamlabel}, Apache Beam {self.beam} and Python {self.python}"


def versions() -> Versions:
    """Those of this process; Python's without the patch release."""
    return Versions(__version__, beam_version, f"{sys.version_info.major}.{sys.version_info.minor}")


class SameVersionsCoder(FastPrimitivesCoder):
    """Beam's coder for any object, which only a worker of the launcher's versions can unpickle."""

    def __reduce__(self) -> tuple[Any, ...]:
        # Plain strings: what is compared must not depend on what is compared.
        return _checked_coder, astuple(versions())


def _checked_coder(*launchers: str) -> SameVersionsCoder:
    """Raises ``VersionError`` in a worker of other versions."""
    launcher, worker = Versions(*launchers), versions()
    if worker != launcher:
        raise VersionError(
            f"this worker has {worker}, but the launcher has {launcher}: "
            "install the launcher's versions in the workers' environment"
        )
    return SameVersionsCoder()
