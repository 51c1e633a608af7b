"""The available memory of the machine and of the control groups."""

import subprocess
import sys

import pytest

from beamlabel.transforms.worker.memory import available_memory

GB = 1 << 30
MACHINE = {"proc/meminfo": "MemTotal:       67108864 kB\nMemFree: 1 kB\nMemAvailable:   33554432 kB\n"}
V2 = MACHINE | {"proc/self/cgroup": "0::/pod/worker\n"}
V1 = MACHINE | {"proc/self/cgroup": "12:memory:/pod/worker\n5:cpu,cpuacct:/pod/worker\n0::/\n"}


def v2(group, limit, used, cache=0):
    directory = f"sys/fs/cgroup/{group}".rstrip("/")
    stat = f"anon 1\ninactive_file {cache}\nslab 2\n"
    return {
        f"{directory}/memory.max": f"{limit}\n",
        f"{directory}/memory.current": f"{used}\n",
        f"{directory}/memory.stat": stat,
    }


def v1(group, limit, used, cache=0):
    directory = f"sys/fs/cgroup/memory/{group}".rstrip("/")
    return {
        f"{directory}/memory.limit_in_bytes": f"{limit}\n",
        f"{directory}/memory.usage_in_bytes": f"{used}\n",
        f"{directory}/memory.stat": f"cache 1\ntotal_inactive_file {cache}\n",
    }


@pytest.mark.parametrize(
    ("files", "available"),
    [
        ({}, None),
        (MACHINE, 32 * GB),
        ({"proc/meminfo": "MemTotal: 1 kB\n"}, None),
        (V2 | v2("pod/worker", "max", GB), 32 * GB),
        (V2 | v2("pod/worker", 8 * GB, 3 * GB), 5 * GB),
        # File pages that are no longer in use are reclaimable.
        (V2 | v2("pod/worker", 8 * GB, 7 * GB, 6 * GB), 7 * GB),
        (V2 | v2("pod/worker", 8 * GB, 3 * GB) | v2("pod", 10 * GB, 9 * GB), 1 * GB),
        # Within a container the group is the root of the mounted tree.
        (MACHINE | {"proc/self/cgroup": "0::/\n"} | v2("", 4 * GB, 1 * GB), 3 * GB),
        (V2 | v2("pod/worker", 2 * GB, 3 * GB), 0),
        (V2 | v2("pod/worker", 64 * GB, 1 * GB), 32 * GB),
        (V1 | v1("pod/worker", 8 * GB, 3 * GB, GB), 6 * GB),
        (V1 | v1("", 6 * GB, 3 * GB), 3 * GB),
        # Version 1 expresses "no limit" as a large number.
        (V1 | v1("pod/worker", 9223372036854771712, GB), 32 * GB),
        (v2("", 4 * GB, 1 * GB), None),
    ],
)  # fmt: skip
def test_available_memory(files, available, tmp_path):
    for name, content in files.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    assert available_memory(tmp_path) == available


def test_a_share_of_the_cores():
    """In a separate process, since the setting is permanent."""
    program = (
        "from beamlabel.transforms.worker import cpu\n"
        "from beamlabel.transforms.worker.compute_pool import compute_pool\n"
        "cpu.use_share(1)\n"
        "assert cpu.available_cores() == 1 and compute_pool().threads == 1\n"
        "cpu.use_share(10_000)\n"
        "assert cpu.available_cores() < 10_000\n"
        "try: cpu.use_share(0)\n"
        "except ValueError: print('refused')\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "refused\n"
