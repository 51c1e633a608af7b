"""A folder on a file system that may only be read, for root, too."""

import shutil
import subprocess
from pathlib import Path

import pytest

_OWN_MOUNTS = ["unshare", "--map-root-user", "--mount", "sh", "-c"]


def with_read_only(folder: Path) -> list[str]:
    """What stands before a command that sees a folder so; the test is skipped if the system allows no such thing."""
    mount = f"mount --bind '{folder}' '{folder}' && mount -o remount,bind,ro '{folder}'"
    if (
        not shutil.which("unshare")
        or subprocess.run([*_OWN_MOUNTS, mount], capture_output=True, check=False).returncode
    ):
        pytest.skip("no mounts of one's own here")
    return [*_OWN_MOUNTS, mount + ' && exec "$@"', "sh"]


def contents(folder: Path) -> dict[Path, int]:
    """All that is in a folder, and when it was changed."""
    return {path: path.lstat().st_mtime_ns for path in (folder, *folder.rglob("*"))}
