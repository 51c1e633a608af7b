"""What the processor offers to this process."""

from __future__ import annotations

import math
from pathlib import Path

_CPUINFO = Path("/proc/cpuinfo")
_CGROUP, _CGROUPS = Path("/proc/self/cgroup"), Path("/sys/fs/cgroup")
# AVX512_BF16 and AMX-BF16 on x86-64, FEAT_BF16 on ARM, as Linux names them
# (https://www.kernel.org/doc/html/latest/arch/x86/cpuinfo.html, .../arch/arm64/elf_hwcaps.html).
_BFLOAT16_FLAGS = frozenset(("avx512_bf16", "amx_bf16", "bf16"))


def is_intel() -> bool:
    """Whether Linux says that Intel made the CPU."""
    return "GenuineIntel" in _cpuinfo("vendor_id")


def bfloat16_units() -> frozenset[str]:
    """The units of this CPU that multiply bfloat16: ``avx512_bf16``, ``amx_bf16``, or ARM's ``bf16``.

    Empty where there are none, and where this cannot be known: on other systems than Linux.
    """
    return _BFLOAT16_FLAGS & {*_cpuinfo("flags"), *_cpuinfo("Features")}


def core_limit() -> float:
    """Cores whose time Linux grants this process: what a container's CPU limit is; infinite if there is none.

    Of control groups of version 2 (https://docs.kernel.org/admin-guide/cgroup-v2.html, ``cpu.max``): the group's
    limit and those above it, as far as they can be seen; a container sees its own as the root.
    """
    try:
        lines = _CGROUP.read_text().splitlines()
    except OSError:
        return math.inf
    paths = [line.removeprefix("0::").strip("/") for line in lines if line.startswith("0::")]
    folders = [folder for path in paths for folder in (Path(path), *Path(path).parents)]
    return min((_quota(_CGROUPS / folder / "cpu.max") for folder in folders), default=math.inf)


def _quota(cpu_max: Path) -> float:
    try:
        quota, period = cpu_max.read_text().split()
        return math.inf if quota == "max" else int(quota) / int(period)
    except (OSError, ValueError):
        return math.inf


def _cpuinfo(name: str) -> list[str]:
    """The words of the first processor's line of this name; all processors are alike."""
    try:
        lines = _CPUINFO.read_text(errors="replace").splitlines()
    except OSError:
        return []
    return next((line.partition(":")[2].split() for line in lines if line.startswith(name)), [])
