"""Where an output is: one spelling for each folder, so that its lock, its staging and every check are of one place."""

from __future__ import annotations

from beamlabel.pipeline.output import staging
from beamlabel.transforms import storage
from beamlabel.transforms.secrets.text import public_uri
from beamlabel.transforms.storage.inside import RealFolder, real
from beamlabel.transforms.storage.patterns import fixed_start, matcher
from beamlabel.transforms.storage.uris import scheme


def output_place(output: str) -> str:
    """The folder of an output: absolute and without links on a local disk, else a URI; without a last slash.

    Raises:
      ValueError: a ``file://`` URI of another machine, a URI that holds credentials, or one with empty folders, ``.``
        or ``..``: of these some programs make other folders, and two runs would not see each other.
    """
    if storage.is_local(output):
        return real(storage.absolute(output)).rstrip("/")
    if public_uri(output) != output:
        raise ValueError(
            "it holds credentials, which would be written into the result: leave them out of the URI"
        )
    place = real(output)
    kind = scheme(place) or ""
    parts = place[len(kind) + 3 :].split("/")
    if any(part in ("", ".", "..") for part in parts[1:]):
        named = "/".join([part for part in parts if part not in ("", ".")])
        raise ValueError(f"it has an empty folder, '.' or '..' in it; if it is the same: {kind}://{named}")
    return place


class OwnFolders:
    """The folders of a run: its output, and what is staged for it in and beside that.

    Args:
      output: as ``output_place`` gives it.
    """

    def __init__(self, output: str) -> None:
        self.paths = (
            output,
            *(one for one in staging.own_folders(output) if not one.startswith(output + "/")),
        )
        self._folders = [RealFolder(path) for path in self.paths]

    def hold(self, path: str) -> bool:
        """Whether a file or folder lies in one of them."""
        return any(folder.holds(path) for folder in self._folders)

    def could_match(self, pattern: str) -> bool:
        """Whether files of the run would be among the matches of a pattern, whatever it calls their folder.

        Args:
          pattern: absolute, as ``storage.match`` takes it.
        """
        start = fixed_start(pattern).rpartition("/")[0] or "/"
        if self.hold(start):
            return True
        files = [f"{folder}/part-0.parquet" for folder in self.paths]
        if storage.is_local(pattern):
            there = real(start).rstrip("/") + "/"
            found = [file.removeprefix(there) for file in files if file.startswith(there)]
            files += [f"{start.rstrip('/')}/{name}" for name in found]
        return any(_matches(pattern, file) for file in files)


def _matches(pattern: str, path: str) -> bool:
    """Whether a file at ``path`` would be among the pattern's matches."""
    return path.startswith(pattern.rstrip("/") + "/") or bool(
        matcher(pattern + "**" * pattern.endswith("/"))(path)
    )
