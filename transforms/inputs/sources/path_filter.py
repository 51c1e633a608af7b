"""The selection of files in a directory or pattern: ``--include`` and ``--exclude``."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

import bracex

from beamlabel.transforms.inputs.archives.compression import ARCHIVE_ENDINGS
from beamlabel.transforms.storage.patterns import matcher

_Matches = Callable[[str], object]


@dataclass(frozen=True)
class PathFilter:
    """Globs on paths below the listed directory.

    A glob without a slash matches names in any directory. One with a slash matches paths from that directory on, and
    one that ends in a slash matches a directory with everything below it. ``*``, ``?``, ``[...]`` and ``**`` are those
    of ``storage.match``; ``{a,b}`` and ``{1..3}`` are braces as in shells. Case is ignored after a name's last dot:
    ``*.jpg`` matches ``A.JPG``.

    Included globs with the ending of an archive, such as ``*.tar``, select archives; the others select their members.
    Any excluded glob leaves out both.

    Attributes:
      include: globs; a file has to match one of them. None: all files do.
      exclude: globs; a file that matches one of them is left out.

    Raises:
      ValueError: names the invalid glob.
    """

    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for globs in (self.include, self.exclude):
            for glob in globs:
                _matcher(glob)

    @cached_property
    def _matchers(self) -> tuple[list[_Matches], list[_Matches]]:
        include, exclude = ([_matcher(glob) for glob in globs] for globs in (self.include, self.exclude))
        return include, exclude

    @cached_property
    def _of_archives(self) -> PathFilter:
        include = tuple(glob for glob in self.include if is_archive_name(glob))
        return PathFilter(include, self.exclude)

    @cached_property
    def _of_members(self) -> PathFilter:
        include = tuple(glob for glob in self.include if not is_archive_name(glob))
        return PathFilter(include, self.exclude)

    def __getstate__(self) -> dict[str, object]:
        # The receiver builds the functions again.
        return {"include": self.include, "exclude": self.exclude}

    def wants(self, path: str) -> bool:
        """Whether a file is selected, by its path below the listed directory."""
        if not self.include and not self.exclude:
            return True
        return self._matches(path)

    def wants_archive(self, path: str) -> bool:
        """Whether an archive is selected for its members, by its path below the listed directory."""
        return self._of_archives.wants(path)

    def wants_member(self, name: str) -> bool:
        """Whether a member of an archive is selected, by its name."""
        return self._of_members.wants(name)

    def _matches(self, path: str) -> bool:
        include, exclude = self._matchers
        path = _lower_ending(path)
        if include and not _any(include, path):
            return False
        return not _any(exclude, path)


def is_archive_name(path: str) -> bool:
    """Whether a path has the ending of an archive."""
    return path.lower().endswith(ARCHIVE_ENDINGS)


def _any(matchers: Sequence[_Matches], path: str) -> bool:
    return any(matches(path) for matches in matchers)


def _matcher(glob: str) -> _Matches:
    if not glob.strip("/"):
        raise ValueError(f"{glob!r} matches no file")
    try:
        expanded = bracex.expand(glob, keep_escapes=True)
    except (ValueError, RecursionError, bracex.ExpansionLimitException) as error:
        raise ValueError(f"{glob!r}: {error}") from error
    matchers = [_matcher_without_braces(one) for one in expanded]
    return lambda path: _any(matchers, path)


def _matcher_without_braces(glob: str) -> _Matches:
    whole = f"{glob}**" if glob.endswith("/") else glob
    if "/" not in whole.strip("/") and not glob.endswith("/"):
        whole = f"**/{whole.strip('/')}" if not glob.startswith("/") else whole
    return matcher(_lower_ending(whole.removeprefix("/")))


def _lower_ending(path: str) -> str:
    directory, slash, name = path.rpartition("/")
    stem, dot, ending = name.rpartition(".")
    return directory + slash + stem + dot + ending.lower() if dot else path
