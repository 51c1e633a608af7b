"""What the processor offers to this process."""

from __future__ import annotations

import hashlib
import math
import os
import platform
from pathlib import Path, PurePosixPath

_CPUINFO = Path("/proc/cpuinfo")
# AVX512_BF16 and AMX-BF16 on x86-64, FEAT_BF16 on ARM, as Linux names them
# (https://www.kernel.org/doc/html/latest/arch/x86/cpuinfo.html, .../arch/arm64/elf_hwcaps.html).
_BFLOAT16_FLAGS = frozenset(("avx512_bf16", "amx_bf16", "bf16"))


def available_cores(root: Path = Path("/")) -> int:
    """Processors that this process may use, at least 1: of its affinity, and of its control groups' quota.

    A quota is CPU time in a period, such as a container's limit; a part of a core counts as one.

    Args:
      root: where the system's ``proc`` and ``sys`` are.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, math.ceil(min(cores, _cgroup_quota(root))))


def _cgroup_quota(root: Path) -> float:
    """Cores that this process's control group and those above it allow, at the least; infinity without a limit.

    A container sees its own group as the root of what is mounted, whatever ``/proc/self/cgroup`` calls it.
    (https://docs.kernel.org/admin-guide/cgroup-v2.html, .../scheduler/sched-bwc.html)
    """
    try:
        lines = (root / "proc/self/cgroup").read_text().splitlines()
    except OSError:
        return math.inf
    quotas = [math.inf]
    for line in lines:
        _, controllers, group = line.split(":", 2)
        if controllers and "cpu" not in controllers.split(","):
            continue
        for mount in (
            ("sys/fs/cgroup/cpu", "sys/fs/cgroup/cpu,cpuacct") if controllers else ("sys/fs/cgroup",)
        ):
            path = PurePosixPath(group)
            for above in (path, *path.parents):
                quotas.append(_quota(root / mount / str(above).lstrip("/")))
    return min(quotas)


def _quota(group: Path) -> float:
    """Cores that one control group allows, of either version; infinity where it does not say."""
    try:
        if (group / "cpu.max").exists():
            quota, period = (group / "cpu.max").read_text().split()
        else:
            quota, period = (
                (group / f"cpu.cfs_{name}_us").read_text().strip() for name in ("quota", "period")
            )
        return int(quota) / int(period) if quota not in ("max", "-1") else math.inf
    except (OSError, ValueError, ZeroDivisionError):
        return math.inf


def model() -> str:
    """What Linux calls the CPU, with the features that it offers to this process; the architecture elsewhere."""
    flags = hashlib.sha256(" ".join(_cpuinfo("flags") + _cpuinfo("Features")).encode()).hexdigest()[:8]
    name = " ".join(_cpuinfo("model name")) or platform.machine()
    return f"{name} {flags}"


def is_intel() -> bool:
    """Whether Linux says that Intel made the CPU."""
    return "GenuineIntel" in _cpuinfo("vendor_id")


def bfloat16_units() -> frozenset[str]:
    """The units of this CPU that multiply bfloat16: ``avx512_bf16``, ``amx_bf16``, or ARM's ``bf16``.

    Empty where there are none, and where this cannot be known: on other systems than Linux.
    """
    return _BFLOAT16_FLAGS & {*_cpuinfo("flags"), *_cpuinfo("Features")}


def _cpuinfo(name: str) -> list[str]:
    """The words of the first processor's line of this name; all processors are alike."""
    try:
        lines = _CPUINFO.read_text(errors="replace").splitlines()
    except OSError:
        return []
    return next((line.partition(":")[2].split() for line in lines if line.startswith(name)), [])
