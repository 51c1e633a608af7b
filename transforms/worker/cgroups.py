"""The control groups of this process, such as a container's, whose limits apply to it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path, PurePosixPath

# By controller: directories where systems mount version 1.
_MOUNTED_AS = {"cpu": ("cpu", "cpu,cpuacct")}


def group_directories(root: Path, controller: str) -> Iterator[Path]:
    """The directories of this process's control group and its parents, of either version.

    A container sees its own group as the root of the mount, under any name in ``/proc/self/cgroup``.
    (https://docs.kernel.org/admin-guide/cgroup-v2.html, .../admin-guide/cgroup-v1/cgroups.html)

    Args:
      root: directory of the system's ``proc`` and ``sys``.
      controller: ``cpu`` or ``memory``; in version 1 each has a tree of its own.
    """
    try:
        lines = (root / "proc/self/cgroup").read_text().splitlines()
    except OSError:
        return
    for line in lines:
        _, controllers, group = line.split(":", 2)
        if controllers and controller not in controllers.split(","):
            continue
        mounts = _MOUNTED_AS.get(controller, (controller,)) if controllers else ("",)
        path = PurePosixPath(group)
        for mount in mounts:
            for above in (path, *path.parents):
                yield root / "sys/fs/cgroup" / mount / str(above).lstrip("/")
