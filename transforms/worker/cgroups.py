"""The control groups that this process is in, whose limits hold for it: a container's, for one."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path, PurePosixPath

# By controller: where systems mount version 1 of it, beside its own name.
_MOUNTED_AS = {"cpu": ("cpu", "cpu,cpuacct")}


def group_folders(root: Path, controller: str) -> Iterator[Path]:
    """The folders of this process's control group and of those above it, of either version.

    A container sees its own group as the root of what is mounted, whatever ``/proc/self/cgroup`` calls it.
    (https://docs.kernel.org/admin-guide/cgroup-v2.html, .../admin-guide/cgroup-v1/cgroups.html)

    Args:
      root: where the system's ``proc`` and ``sys`` are.
      controller: ``cpu`` or ``memory``; of version 1 each has a tree of its own.
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
