"""The CPU of this process: cores, model, and bfloat16 instructions."""

from __future__ import annotations

import hashlib
import math
import os
import platform
from pathlib import Path

from beamlabel.transforms.worker.cgroups import group_directories

_CPUINFO = Path("/proc/cpuinfo")
_share: float = math.inf
# AVX512_BF16 and AMX-BF16 on x86-64, FEAT_BF16 on ARM, as Linux names them
# (https://www.kernel.org/doc/html/latest/arch/x86/cpuinfo.html, .../arch/arm64/elf_hwcaps.html).
_BFLOAT16_FLAGS = frozenset(("avx512_bf16", "amx_bf16", "bf16"))


def available_cores(root: Path = Path("/")) -> int:
    """The cores that this process may use, at least 1, by its affinity, its control groups' quota, and its share.

    A quota is CPU time per period, such as a container's limit; a fraction of a core counts as one.

    Args:
      root: directory of the system's ``proc`` and ``sys``.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, math.ceil(min(cores, _cgroup_quota(root), _share)))


def use_share(cores: int) -> None:
    """Limits this process to so many cores, since other processes of the job use the rest.

    Call it before anything computes: it does not stop existing threads.

    Raises:
      ValueError: ``cores`` is less than 1.
    """
    global _share
    if cores < 1:
        raise ValueError(f"cores must be at least 1, not {cores}")
    _share = cores


def _cgroup_quota(root: Path) -> float:
    """The smallest number of cores that this process's control group and its parents allow; infinity without a limit.

    (https://docs.kernel.org/admin-guide/cgroup-v2.html, .../scheduler/sched-bwc.html)
    """
    return min(map(_quota, group_directories(root, "cpu")), default=math.inf)


def _quota(group: Path) -> float:
    """The number of cores that a control group of either version allows; infinity without a limit."""
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
    """The CPU's model name on Linux, with a hash of its features; elsewhere the architecture."""
    flags = hashlib.sha256(" ".join(_cpuinfo("flags") + _cpuinfo("Features")).encode()).hexdigest()[:8]
    name = " ".join(_cpuinfo("model name")) or platform.machine()
    return f"{name} {flags}"


def is_intel() -> bool:
    """Whether Intel made the CPU, according to Linux."""
    return "GenuineIntel" in _cpuinfo("vendor_id")


def bfloat16_units() -> frozenset[str]:
    """The CPU's bfloat16 instruction sets: ``avx512_bf16``, ``amx_bf16``, or ARM's ``bf16``.

    Empty if there are none, or if they cannot be determined because the system is not Linux.
    """
    return _BFLOAT16_FLAGS & {*_cpuinfo("flags"), *_cpuinfo("Features")}


def _cpuinfo(name: str) -> list[str]:
    """The words of a line of ``/proc/cpuinfo`` for the first core; all cores are alike."""
    try:
        lines = _CPUINFO.read_text(errors="replace").splitlines()
    except OSError:
        return []
    return next((line.partition(":")[2].split() for line in lines if line.startswith(name)), [])
