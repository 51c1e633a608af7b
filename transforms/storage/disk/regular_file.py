"""Regular local files, as opposed to pipes, sockets, devices, and virtual files of the kernel, as in ``/proc``.

Opening a pipe waits for its writer, opening a device may have effects, and ``/proc`` holds secrets of processes and no
images. Symbolic links are followed; the type and the file system of the target count.
"""

from __future__ import annotations

import errno
import io
import os
import stat
from pathlib import Path

# Types of file systems without user data, as in /proc/PID/mountinfo, see proc(5).
_KERNEL = frozenset(
    ("proc", "sysfs", "devtmpfs", "devpts", "cgroup", "cgroup2", "debugfs", "tracefs", "securityfs", "configfs",
     "pstore", "bpf", "efivarfs", "binfmt_misc", "mqueue", "fusectl", "selinuxfs", "nsfs", "rpc_pipefs")
)  # fmt: skip
_PLACES = ("/proc/", "/sys/", "/dev/")
# A memory disk for all users.
_FREE = "/dev/shm/"
_known: dict[int, bool] = {}


class NotAFileError(OSError):
    """A pipe, a socket, a device, or a virtual file of the kernel."""


def kind_of_other(path: str, status: os.stat_result) -> str | None:
    """The kind of a path that is not a regular file, in words; None for a regular file.

    Args:
      path: absolute or relative.
      status: of the path's target.
    """
    mode = status.st_mode
    if not stat.S_ISREG(mode):
        kinds = {stat.S_IFDIR: "a directory", stat.S_IFIFO: "a pipe", stat.S_IFSOCK: "a socket"}
        return kinds.get(stat.S_IFMT(mode), "a device")
    if is_of_kernel(status.st_dev) or _is_named_in_kernel(path):
        return "a virtual file of the kernel"
    return None


def _is_named_in_kernel(path: str) -> bool:
    """Whether a path is in a directory of the kernel, such as ``/proc/self/fd/3``, which may lead to a regular file."""
    if "/." in path or "//" in path:
        path = "/" + os.path.normpath(path).lstrip("/")
    return path.startswith(_PLACES) and not path.startswith(_FREE)


def is_of_kernel(device: int) -> bool:
    """Whether the file system with an ``st_dev`` is the kernel's; False if unknown."""
    found = _known.get(device)
    if found is None:
        found = _known[device] = device in _kernel_devices()
    return found


def _kernel_devices() -> set[int]:
    try:
        lines = Path("/proc/self/mountinfo").read_text(errors="replace").splitlines()
    except OSError:  # not on Linux
        return set()
    found = set()
    for line in lines:
        fields, _, rest = line.partition(" - ")
        major, _, minor = fields.split()[2].partition(":")
        if rest.split()[0] in _KERNEL:
            found.add(os.makedev(int(major), int(minor)))
    return found


def open_regular(path: str) -> io.BufferedReader:
    """Opens a regular file for reading; never opens other files, nor waits for one that replaced it meanwhile.

    Raises:
      NotAFileError: The path is not a regular file.
      OSError: See ``open``.
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
    """Raises ``NotAFileError``, or ``IsADirectoryError`` as ``open`` does, if the path is not a regular file."""
    kind = kind_of_other(path, status)
    if kind is None:
        return
    if stat.S_ISDIR(status.st_mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), path)
    raise NotAFileError(errno.EINVAL, f"{kind}, not a file", path)


def open_nonblocking(path: str, flags: int) -> int:
    """An ``opener`` that does not wait: a pipe may have replaced the file, and opening one waits for a writer."""
    return os.open(path, flags | os.O_NONBLOCK | os.O_NOCTTY)
