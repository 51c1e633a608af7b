"""The number of cores a process may use: its affinity and the quotas of its control groups."""

import math
import os
from pathlib import Path

import pytest

from beamlabel.transforms.worker import cpu
from beamlabel.transforms.worker.cpu import available_cores

V2 = {"proc/self/cgroup": "0::/pod/worker\n"}
V1 = {"proc/self/cgroup": "12:memory:/pod/worker\n5:cpu,cpuacct:/pod/worker\n1:name=systemd:/\n0::/\n"}


def v1(group: str, quota: int, period: int = 100_000) -> dict[str, str]:
    return V1 | {
        f"sys/fs/cgroup/{group}/cpu.cfs_quota_us": f"{quota}\n",
        f"sys/fs/cgroup/{group}/cpu.cfs_period_us": f"{period}\n",
    }


@pytest.fixture(autouse=True)
def eight_cores(monkeypatch):
    if hasattr(os, "sched_getaffinity"):
        monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)))
    monkeypatch.setattr(os, "cpu_count", lambda: 8)


def system(root: Path, *files: dict[str, str]) -> Path:
    """Creates the kernel's files below a directory of the test."""
    for name, content in (item for some in files for item in some.items()):
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    return root


@pytest.mark.parametrize(
    ("files", "cores"),
    [
        ({}, 8),
        ({**V2, "sys/fs/cgroup/pod/worker/cpu.max": "max 100000\n"}, 8),
        ({**V2, "sys/fs/cgroup/pod/worker/cpu.max": "200000 100000\n"}, 2),
        ({**V2, "sys/fs/cgroup/pod/worker/cpu.max": "150000 100000\n"}, 2),
        ({**V2, "sys/fs/cgroup/pod/worker/cpu.max": "10000 100000\n"}, 1),
        ({**V2, "sys/fs/cgroup/pod/worker/cpu.max": "9900000 100000\n"}, 8),
        # A pod's limit applies to each of its containers.
        ({**V2, "sys/fs/cgroup/pod/worker/cpu.max": "max 100000\n", "sys/fs/cgroup/pod/cpu.max": "300000 100000\n"}, 3),
        # Within a container, the mounted tree begins with the container's own group.
        ({"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": "400000 100000\n"}, 4),
        ({**V2, "sys/fs/cgroup/cpu.max": "400000 100000\n"}, 4),
        (v1("cpu,cpuacct/pod/worker", -1), 8),
        (v1("cpu,cpuacct/pod/worker", 250_000), 3),
        (v1("cpu", 50_000, 50_000), 1),
        ({**V2, "sys/fs/cgroup/pod/worker/cpu.max": "what is this\n"}, 8),
    ],
)  # fmt: skip
def test_the_quota_of_a_control_group(files, cores, tmp_path):
    assert available_cores(system(tmp_path, files)) == cores


def test_this_process(monkeypatch):
    monkeypatch.undo()
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    quota = cpu._cgroup_quota(Path("/"))
    assert available_cores() == (cores if quota == math.inf else max(1, min(cores, math.ceil(quota))))
