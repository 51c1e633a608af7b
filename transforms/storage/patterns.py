"""The pattern language of all storage backends."""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from os.path import commonprefix

from beamlabel.transforms.storage.listing.stored_file import StoredFile


@dataclass(frozen=True)
class Directory:
    """A directory in the listing of its parent; in a bucket a common prefix of names.

    Attributes:
      path: an absolute path or a URI, without a slash at its end.
    """

    path: str


_GLOB = re.compile(r"[*?[]")


def has_glob(pattern: str) -> bool:
    """Whether ``pattern`` holds a glob character."""
    return _GLOB.search(pattern) is not None


def escape(path: str) -> str:
    """A pattern that matches exactly ``path``."""
    return _GLOB.sub(r"[\g<0>]", path)


def split_glob(pattern: str) -> tuple[str, str]:
    """Splits before the first path segment with a glob character: ``a/b/*.jpg`` → ``a/b/``, ``*.jpg``."""
    glob = _GLOB.search(pattern)
    start = pattern.rfind("/", 0, glob.start() if glob else None) + 1
    return pattern[:start], pattern[start:]


def without_directories(files: Iterable[StoredFile]) -> Iterator[StoredFile]:
    """The files without the empty objects that consoles and browsers create for directories."""
    return (file for file in files if not (file.path.endswith("/") and not file.size))


def entries_of_page(files: Iterable[StoredFile], prefixes: Iterable[str]) -> Iterator[StoredFile | Directory]:
    """One page of a listing with a delimiter: its files, then its directories, whose URIs end in ``/``."""
    yield from without_directories(files)
    yield from (Directory(prefix[:-1]) for prefix in sorted(prefixes))


def lost(
    moves: Mapping[str, str],
    absent: Iterable[str],
    listing: Callable[[str, str | None], Iterable[StoredFile]],
) -> list[str]:
    """The objects that exist neither at their old path nor at their new one, by one listing per directory.

    Args:
      moves: from old path to new path.
      absent: old paths that do not exist.
      listing: see ``match_objects``.
    """
    directories: dict[str, dict[str, str]] = {}
    for source in absent:
        target = moves[source]
        directories.setdefault(target.rpartition("/")[0], {})[target] = source
    for wanted in directories.values():
        prefix = commonprefix(sorted(wanted))  # noqa: RUF071 (by characters)
        for file in listing(prefix, "/"):
            wanted.pop(file.path, None)
    return sorted(source for wanted in directories.values() for source in wanted.values())


def match_objects(
    pattern: str, listing: Callable[[str, str | None], Iterable[StoredFile]]
) -> Iterator[StoredFile]:
    """The objects of a bucket that match a pattern with glob characters.

    Args:
      pattern: a URI.
      listing: lists the objects whose URIs begin with a prefix; with a delimiter, only those without it after the
        prefix.
    """
    start, rest = split_glob(pattern)
    # Objects in subdirectories are listed only if the pattern can match them.
    is_flat = "/" not in rest and "**" not in rest
    matches = matcher(rest)
    # A bucket lists by prefix: everything before the first glob character.
    prefix = start + _GLOB.split(rest, maxsplit=1)[0]
    for file in without_directories(listing(prefix, "/" if is_flat else None)):
        if matches(file.path[len(start) :]):
            yield file


def fixed_start(pattern: str) -> str:
    """The directory that a pattern searches, with a slash at its end; a pattern without a glob is a directory."""
    literal = pattern if not has_glob(pattern) else split_glob(pattern)[0]
    return literal.rstrip("/") + "/"


def matcher(pattern: str) -> Callable[[str], object]:
    """A function that tests whether a whole path matches ``pattern``.

    ``*``, ``?`` and ``[...]`` (``[!...]`` negates) stop at ``/``, and ``**`` does not. ``**/`` between slashes also
    matches no directory at all, so ``a/**/*.jpg`` includes ``a/1.jpg``, as in shells and Git. The patterns are those of
    Beam's ``FileSystem.translate_pattern``, except that there ``?`` and ``[!...]`` also match ``/``, and ``a/**/b``
    does not match ``a/b``.

    Raises:
      ValueError: A range in brackets runs backwards.
    """
    try:
        return re.compile(_translate(pattern), re.DOTALL).fullmatch
    except re.error as error:
        raise ValueError(f"bad pattern {pattern!r}: {error}") from error


# Stars that cross directories: before the last run the shortest match is enough.
_SHORTEST = {"": "", "**": ".*?", "**/": "(?:.*?/)??"}
_LONGEST = {"": "", "**": ".*", "**/": "(?:.*/)?"}


def _translate(pattern: str) -> str:
    """A regular expression whose time does not explode with the number of stars.

    The text between two stars may match at its first place, which leaves the most room for the rest. An atomic group
    keeps the engine from trying other places.
    """
    numbers = itertools.count()
    done, star, run = "", "", ""
    *directories, name = pattern.split("/")
    for segment in (*(directory + "/" for directory in directories), name):
        if segment == "**/":
            done += _atomic(_SHORTEST[star] + run, numbers)
            star, run = "**/", ""
            continue
        *before, rest = _runs(segment)
        for pieces in before:
            done += _atomic(_SHORTEST[star] + run + _between_stars(pieces, numbers), numbers)
            star, run = "**", ""
        run += _between_stars(rest[:-1], numbers) + ("[^/]*" if len(rest) > 1 else "") + rest[-1]
    return done + _LONGEST[star] + run


def _runs(segment: str) -> list[list[str]]:
    """Splits a segment at ``**`` into runs, and each run at ``*`` into pieces."""
    runs = [[""]]
    for token in _TOKEN.findall(segment):
        if token.startswith("**"):
            runs.append([""])
        elif token == "*":
            runs[-1].append("")
        else:
            runs[-1][-1] += _translate_token(token)
    return runs


def _between_stars(pieces: list[str], numbers: Iterator[int]) -> str:
    return "".join(pieces[:1]) + "".join(_atomic(f"[^/]*?{piece}", numbers) for piece in pieces[1:])


def _atomic(expression: str, numbers: Iterator[int]) -> str:
    """An equivalent of ``(?>...)``, which needs Python 3.11: the engine never backtracks into a lookahead."""
    name = f"run{next(numbers)}"
    return f"(?=(?P<{name}>{expression}))(?P={name})" if expression else ""


# A bracket without its closing bracket, or with nothing inside, is a plain character.
_TOKEN = re.compile(r"\*\*+|\*|\?|\[!?(?:\][^\]]*|[^\]]+)\]|.", re.DOTALL)


def _translate_token(token: str) -> str:
    if token == "?":
        return "[^/]"
    if len(token) == 1:
        return re.escape(token)
    inside = token[1:-1]
    negated = inside.startswith("!") and inside != "!"
    # Inside a class only the dash keeps its special meaning.
    chars = re.sub(r"[\\^\[\]&~|]", r"\\\g<0>", inside[negated:])
    return f"[^/{chars}]" if negated else f"(?!/)[{chars}]"
