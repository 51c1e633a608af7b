"""Regular local files, as opposed to pipes, sockets, devices, and virtual files of the kernel, as in ``/proc``.

Opening a pipe waits for its writer, opening a device may have effects, and ``/proc`` holds secrets of processes and no
images. Symbolic links are followed; the type and the file system of the target count.
"""

from __future__ import annotations

import errno
import functools
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
# Links on the way to a file; Linux follows no more.
_MOST_LINKS = 40
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
    if is_of_kernel(status.st_dev) or _leads_through_kernel(path):
        return "a virtual file of the kernel"
    return None


def _leads_through_kernel(path: str) -> bool:
    """Whether a path leads through a directory of the kernel, such as ``/proc/self/fd/3``, perhaps to a regular file.

    Symbolic links count as what they name. Directories are cached, since most files lie beside others.
    """
    if not path.startswith("/"):
        path = f"{os.getcwd()}/{path}"  # noqa: PTH109
    if os.path.islink(path):  # noqa: PTH114
        return _passes_kernel(path)
    return _directory_passes_kernel(os.path.dirname(path))  # noqa: PTH120


def _passes_kernel(path: str) -> bool:
    place, waiting, links = "", path.split("/")[::-1], 0
    while waiting and links <= _MOST_LINKS:
        name = waiting.pop()
        if name == "..":
            place = place.rpartition("/")[0]
        if name in ("", ".", ".."):
            continue
        inside, place = place, f"{place}/{name}"
        try:
            target = os.readlink(place)  # noqa: PTH115
        except OSError:  # not a link
            continue
        if _is_in_kernel(place):
            return True
        links += 1
        place = "" if target.startswith("/") else inside
        waiting += target.split("/")[::-1]
    return _is_in_kernel(place)


_directory_passes_kernel = functools.lru_cache(maxsize=1024)(_passes_kernel)


def _is_in_kernel(place: str) -> bool:
    return f"{place}/".startswith(_PLACES) and not f"{place}/".startswith(_FREE)


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
