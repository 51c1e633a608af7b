"""Checks the output directories and files that options name."""

from __future__ import annotations

import os
import pwd
import tempfile
from contextlib import suppress
from urllib.parse import urlsplit

from beamlabel.pipeline.errors import UsageError
from beamlabel.pipeline.output.place import output_place
from beamlabel.pipeline.places.local import absolute_path, check_writable
from beamlabel.transforms import storage


def check_directory(option: str, directory: str) -> str:
    """Checks an option's output directory; returns it as ``output_place`` does.

    Args:
      option: its name, such as ``--output``.
      directory: a local path, or a URI.

    Raises:
      UsageError: the directory cannot be written, ``output_place`` refuses it, or it is a likely mistake: the root, the
        home directory, the directory of temporary files, or one that holds any of these or the current directory.
    """
    path = absolute_path(option, directory)
    try:
        there = output_place(directory)
    except ValueError as error:
        raise UsageError(f"{option} {directory!r}: {error}") from error
    if not storage.is_local(path):
        if not urlsplit(path).netloc:
            raise UsageError(f"{option} {directory!r} names no bucket")
        return there
    real = os.path.realpath(path)
    if real == "/":
        raise UsageError(
            f"{option} {directory!r} is the root of the file system; name a directory of its own"
        )
    for place, what in _meant_otherwise():
        if real == place and what != _HERE:
            raise UsageError(f"{option} {directory!r} is {what}; name a directory of its own")
        if place.startswith(real + "/"):
            raise UsageError(f"{option} {directory!r} holds {what}, {place}; name a directory of its own")
    check_writable(option, path.rstrip("/"), is_directory=True)
    return there


def check_file(option: str, file: str) -> str:
    """Checks an option's output file; returns its absolute path.

    Args:
      option: its name, such as ``--errors``.
      file: a local path, or a URI.

    Raises:
      UsageError: the file cannot be written, or is a directory, a pipe or a device.
    """
    path = absolute_path(option, file)
    if path.endswith("/"):
        raise UsageError(f"{option} {file!r} is a directory, not a file")
    if storage.is_local(path):
        check_writable(option, path, is_directory=False)
    return path


_HERE = "the current directory"


def _meant_otherwise() -> list[tuple[str, str]]:
    """Directories that are not for outputs, with links resolved, and their names for errors."""
    homes = {os.path.expanduser("~")}  # noqa: PTH111 (Path.home raises if there is none)
    with suppress(KeyError):
        homes.add(pwd.getpwuid(os.geteuid()).pw_dir)
    found = [(os.path.realpath(home), "the home directory") for home in homes if home.startswith("/")]
    with suppress(FileNotFoundError):
        found.append((os.path.realpath(tempfile.gettempdir()), "the directory of temporary files"))
    with suppress(FileNotFoundError):
        found.append((os.path.realpath("."), _HERE))
    return [(place, what) for place, what in found if place != "/"]
