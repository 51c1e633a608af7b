"""The location of an output, with one spelling per directory, so that lock, staging and checks all agree."""

from __future__ import annotations

from beamlabel.pipeline.output import staging
from beamlabel.transforms import storage
from beamlabel.transforms.secrets.text import public_uri
from beamlabel.transforms.storage.inside import RealDirectory, real
from beamlabel.transforms.storage.patterns import fixed_start, matcher
from beamlabel.transforms.storage.uris import scheme


def output_place(output: str) -> str:
    """The directory of an output: absolute and without links on a local disk, else a URI; without a trailing slash.

    Raises:
      ValueError: a ``file://`` URI of another machine, a URI with credentials, or a URI with an empty part, ``.`` or
        ``..``, which some programs resolve to other directories, so that two runs would not detect each other.
    """
    if storage.is_local(output):
        return real(storage.absolute(output)).rstrip("/")
    if public_uri(output) != output:
        raise ValueError("the URI holds credentials, which the result would contain; remove them")
    place = real(output)
    kind = scheme(place) or ""
    parts = place[len(kind) + 3 :].split("/")
    if any(part in ("", ".", "..") for part in parts[1:]):
        named = "/".join([part for part in parts if part not in ("", ".")])
        # The directory that ".." means depends on the program, so no other URI is suggested.
        remedy = "write it without" if ".." in parts else f"if you mean it, use {kind}://{named}"
        raise ValueError(f"the URI has an empty part, '.' or '..'; {remedy}")
    return place


class OwnDirectories:
    """The directories of a run: its output, and its staging directories in and beside that.

    Args:
      output: the result of ``output_place``.
    """

    def __init__(self, output: str) -> None:
        self.paths = (
            output,
            *(one for one in staging.own_directories(output) if not one.startswith(output + "/")),
        )
        self._directories = [RealDirectory(path) for path in self.paths]

    def hold(self, path: str) -> bool:
        """Whether a file or directory is in one of them."""
        return any(directory.holds(path) for directory in self._directories)

    def could_match(self, pattern: str) -> bool:
        """Whether a pattern would match files of the run, by any name of their directory.

        Args:
          pattern: absolute, for ``storage.match``.
        """
        start = fixed_start(pattern).rpartition("/")[0] or "/"
        if self.hold(start):
            return True
        files = [f"{directory}/part-0.parquet" for directory in self.paths]
        if storage.is_local(pattern):
            there = real(start).rstrip("/") + "/"
            found = [file.removeprefix(there) for file in files if file.startswith(there)]
            files += [f"{start.rstrip('/')}/{name}" for name in found]
        return any(_matches(pattern, file) for file in files)


def _matches(pattern: str, path: str) -> bool:
    """Whether the pattern would match a file at ``path``."""
    return path.startswith(pattern.rstrip("/") + "/") or bool(
        matcher(pattern + "**" * pattern.endswith("/"))(path)
    )
