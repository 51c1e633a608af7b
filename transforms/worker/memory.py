"""The memory available to this process and its children."""

from __future__ import annotations

from pathlib import Path

from beamlabel.transforms.worker.cgroups import group_directories

# By version of control groups: the limit, the usage, and the name in memory.stat of the file pages that the kernel can
# reclaim.
_VERSIONS = (
    ("memory.max", "memory.current", "inactive_file"),
    ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
)


def available_memory(root: Path = Path("/")) -> int | None:
    """Free and reclaimable bytes: the minimum over the machine and the control groups.

    (https://docs.kernel.org/admin-guide/cgroup-v2.html, .../admin-guide/cgroup-v1/memory.html, proc_meminfo(5))

    Args:
      root: directory of the system's ``proc`` and ``sys``.

    Returns:
      The bytes; None if neither the system nor a control group reports them.
    """
    found = [_of_machine(root), *map(_of_group, group_directories(root, "memory"))]
    known = [size for size in found if size is not None]
    return max(0, min(known)) if known else None


def _of_machine(root: Path) -> int | None:
    try:
        lines = (root / "proc/meminfo").read_text().splitlines()
        return next(int(line.split()[1]) << 10 for line in lines if line.startswith("MemAvailable:"))
    except (OSError, ValueError, IndexError, StopIteration):
        return None


def _of_group(group: Path) -> int | None:
    """The bytes that a control group has left; None without a limit."""
    for limit, used, reclaimable in _VERSIONS:
        try:
            most = int((group / limit).read_text())
            left = most - int((group / used).read_text())
            stat = dict(line.split() for line in (group / "memory.stat").read_text().splitlines())
            return min(most, left + int(stat.get(reclaimable, 0)))
        except (OSError, ValueError):  # not of this version, or "max"
            continue
    return None
