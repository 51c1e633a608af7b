"""Limits for the process that handles a module; every command that opens a module has both options."""

from __future__ import annotations

from beamlabel.pipeline.options.declare import option
from beamlabel.pipeline.options.types import BYTE_SIZE, DURATION
from beamlabel.transforms.module_process.limits import DEADLINE_SECONDS


def deadline_option(work: str) -> float:
    """Declares ``--module_deadline``.

    Args:
      work: verb for the process in the help text, in the third person, such as ``fetches and unpacks``.
    """
    return option(
        DURATION,
        default=DEADLINE_SECONDS,
        metavar="TIME",
        help=f"time limit of the process that {work} the module (default 10m)",
    )


def memory_option() -> int | None:
    """Declares ``--module_memory``, for the same process."""
    return option(
        BYTE_SIZE, metavar="SIZE", help="its memory limit, such as 8G (default: free memory, at least 4G)"
    )
