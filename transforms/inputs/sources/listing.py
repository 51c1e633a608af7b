"""A listing: the files that match a pattern are the images."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from functools import lru_cache

from beamlabel.transforms import storage
from beamlabel.transforms.inputs.packed_refs import references
from beamlabel.transforms.inputs.sources.image_files import (
    FileKind,
    is_in_own_directory,
    kind_by_content,
    kind_by_name,
)
from beamlabel.transforms.inputs.sources.packed import Found, LeftOut, Place, plan_packed, unnamed_failure
from beamlabel.transforms.inputs.sources.path_filter import PathFilter
from beamlabel.transforms.inputs.sources.source import Planned, Source, SourceOptions, ref_id
from beamlabel.transforms.records import Failure, ImageRef, InputFile, WorkUnit
from beamlabel.transforms.storage.identity import image_id
from beamlabel.transforms.storage.patterns import fixed_start

# The number of files with inconclusive names whose first bytes are read at a time.
_LOOKS = 256
_THREADS = 32
# A listing visits directories one after the other.
_DIRECTORIES = 1024


class ListingSource(Source):
    """A directory, a pattern, or a single file. A row is a place in the listing, from 0.

    Files that are not images, by their names or, if these are inconclusive, by their first bytes, are left out and
    counted. A file that the input names directly is always an image.
    """

    def plan(
        self, number: int, file: InputFile, options: SourceOptions, limit: int | None
    ) -> Iterator[Planned]:
        yield from plan_packed(number, file, listed(file.path, options.files), options, limit)

    def refs(self, unit: WorkUnit, options: SourceOptions) -> Iterator[ImageRef | Failure]:
        for ref in references(unit):
            if (failure := unnamed_failure(ref, unit)) is not None:
                yield failure
                continue
            row, uri, listing_stat, _ = ref
            # A listed image is its own input file, because its place in the listing may change.
            yield ImageRef(
                uri, ref_id(uri, 0), uri, row, unit.unit_id, listing_stat=listing_stat, image_id=image_id(uri)
            )

    def estimate(self, file: InputFile, options: SourceOptions) -> int:
        start = len(fixed_start(file.path))
        below = (one.path[start:] for one in storage.match(file.path))
        maybe = (FileKind.IMAGE, FileKind.UNKNOWN)
        return sum(kind_by_name(path) in maybe for path in below if options.files.wants(path))


def listed(pattern: str, wanted: PathFilter) -> Iterator[Place]:
    """The files that match a pattern, in order: images, and files that are left out.

    Args:
      pattern: see ``storage.match``.
      wanted: selects the files.

    Raises:
      OSError, ValueError: see ``storage.match``.
    """
    start = fixed_start(pattern)
    is_local, is_own = storage.is_local(pattern), lru_cache(_DIRECTORIES)(is_in_own_directory)
    waiting = deque[tuple[storage.StoredFile, "FileKind | Future[FileKind]"]]()
    with ThreadPoolExecutor(_THREADS) as threads:
        for file in storage.match(pattern):
            below = file.path[len(start) :]
            kind: FileKind | Future[FileKind] = FileKind.IMAGE
            if file.path != pattern:
                kind = kind_by_name(below) if wanted.wants(below) else FileKind.EXCLUDED
                if is_local and kind is not FileKind.EXCLUDED and is_own(file.path.rpartition("/")[0]):
                    kind = FileKind.HIDDEN  # by a link
            if kind is FileKind.UNKNOWN:
                kind = threads.submit(kind_by_content, file.path)
            waiting.append((file, kind))
            yield from _places(waiting, _LOOKS)
        yield from _places(waiting, 0)


def _places(
    waiting: deque[tuple[storage.StoredFile, FileKind | Future[FileKind]]], most: int
) -> Iterator[Place]:
    """Takes the files of known kinds, and waits for others while more than ``most`` are queued."""
    while waiting and (len(waiting) > most or not isinstance(waiting[0][1], Future)):
        file, found = waiting.popleft()
        kind = found.result() if isinstance(found, Future) else found
        if kind is FileKind.IMAGE:
            yield Found(file.path, (file.size, file.version))
        else:
            yield LeftOut(kind.value)
