"""Local files that are such: no pipes, sockets or devices, and none that the kernel makes up, as below ``/proc``.

Opening a pipe waits for its writer, a device may do something, and what ``/proc`` holds are secrets of processes and no
images. Symbolic links are followed, and what counts is what they lead to: its type, and the file system it lies in.
"""

from __future__ import annotations

import errno
import io
import os
import stat
from pathlib import Path

# Types of file systems, as proc(5) has them in /proc/PID/mountinfo, that hold no data of anybody's.
_KERNEL = frozenset(
    ("proc", "sysfs", "devtmpfs", "devpts", "cgroup", "cgroup2", "debugfs", "tracefs", "securityfs", "configfs",
     "pstore", "bpf", "efivarfs", "binfmt_misc", "mqueue", "fusectl", "selinuxfs", "nsfs", "rpc_pipefs")
)  # fmt: skip
_PLACES = ("/proc/", "/sys/", "/dev/")
# A memory disk for everybody.
_FREE = "/dev/shm/"
_known: dict[int, bool] = {}


class NotAFileError(OSError):
    """A pipe, a socket, a device, or a file that the kernel makes up."""


def kind_of_other(path: str, status: os.stat_result) -> str | None:
    """What a path leads to if that is no file, in words; None for a file.

    Args:
      path: absolute or not.
      status: of what it leads to.
    """
    mode = status.st_mode
    if not stat.S_ISREG(mode):
        kinds = {stat.S_IFDIR: "a directory", stat.S_IFIFO: "a pipe", stat.S_IFSOCK: "a socket"}
        return kinds.get(stat.S_IFMT(mode), "a device")
    if is_of_kernel(status.st_dev) or _is_named_in_kernel(path):
        return "a file that the kernel makes up"
    return None


def _is_named_in_kernel(path: str) -> bool:
    """Whether a name is of the kernel's: ``/proc/self/fd/3`` may lead to a file, which is this process's own."""
    if "/." in path or "//" in path:
        path = "/" + os.path.normpath(path).lstrip("/")
    return path.startswith(_PLACES) and not path.startswith(_FREE)


def is_of_kernel(device: int) -> bool:
    """Whether a file system, by its ``st_dev``, holds what the kernel makes up; False where that cannot be told."""
    found = _known.get(device)
    if found is None:
        found = _known[device] = device in _kernel_devices()
    return found


def _kernel_devices() -> set[int]:
    try:
        lines = Path("/proc/self/mountinfo").read_text(errors="replace").splitlines()
    except OSError:  # another system than Linux
        return set()
    found = set()
    for line in lines:
        fields, _, rest = line.partition(" - ")
        major, _, minor = fields.split()[2].partition(":")
        if rest.split()[0] in _KERNEL:
            found.add(os.makedev(int(major), int(minor)))
    return found


def open_regular(path: str) -> io.BufferedReader:
    """The file, open for reading. What is none is not opened; or not waited for, if it came to be one meanwhile.

    Raises:
      NotAFileError: it is none.
      OSError: see ``open``.
    """
    check_regular(path, os.stat(path))  # noqa: PTH116
    file = open(path, "rb", opener=open_nonblocking)  # noqa: SIM115
    try:
        check_regular(path, os.fstat(file.fileno()))
    except BaseException:
        file.close()
        raise
    return file


def check_regular(path: str, status: os.stat_result) -> None:
    """Refuses what is no file, see ``kind_of_other``; of a directory the error is that of ``open``."""
    kind = kind_of_other(path, status)
    if kind is None:
        return
    if stat.S_ISDIR(status.st_mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), path)
    raise NotAFileError(errno.EINVAL, f"{kind}, not a file", path)


def open_nonblocking(path: str, flags: int) -> int:
    """For ``opener``: what was a file a moment ago may now be a pipe, and opening one waits for a writer."""
    return os.open(path, flags | os.O_NONBLOCK | os.O_NOCTTY)
