"""A directory on a file system that is read-only even for root."""

import shutil
import subprocess
from pathlib import Path

import pytest

_OWN_MOUNTS = ["unshare", "--map-root-user", "--mount", "sh", "-c"]


def with_read_only(directory: Path) -> list[str]:
    """A command prefix that makes a directory read-only; the test is skipped if the system does not allow it."""
    mount = f"mount --bind '{directory}' '{directory}' && mount -o remount,bind,ro '{directory}'"
    if (
        not shutil.which("unshare")
        or subprocess.run([*_OWN_MOUNTS, mount], capture_output=True, check=False).returncode
    ):
        pytest.skip("needs permission to mount in a namespace")
    return [*_OWN_MOUNTS, mount + ' && exec "$@"', "sh"]


def contents(directory: Path) -> dict[Path, int]:
    """All files of a directory with their modification times."""
    return {path: path.lstat().st_mtime_ns for path in (directory, *directory.rglob("*"))}
