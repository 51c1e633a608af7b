"""Which references of the input are labeled: not those that an earlier run has labeled; only those that it failed.

The launcher gathers what earlier runs say (``pipeline/job/skip_labeled.py``) into indexes of keys, which are staged
once; ``OpenUnit`` asks them for each reference. Nothing is joined, and nothing of the earlier runs is shuffled.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future
from dataclasses import dataclass

from beamlabel.transforms import storage
from beamlabel.transforms.inputs.key_index import KeyIndex, key
from beamlabel.transforms.records import Failure, ImageRef
from beamlabel.transforms.storage.host_cache import open_artifact
from beamlabel.transforms.storage.identity import image_id, image_id_of_bytes
from beamlabel.transforms.storage.uris import encodable, scheme
from beamlabel.transforms.worker.daemon_pool import DaemonPool

# Questions for the size and version of an image that are under way at a time: each waits for a network.
_STAT_THREADS = 64
_STAT_WINDOW = 256


@dataclass(frozen=True)
class StagedIndex:
    """An index of keys as it is staged.

    Attributes:
      path: where it lies.
      sha256: of the file, in hex.
    """

    path: str
    sha256: str


@dataclass(frozen=True)
class SelectionOptions:
    """What is asked for.

    Attributes:
      labeled: keys of the rows that are there: ``labeled_key``.
      changed: whether these hold size and version too, so that an image that has changed is labeled anew.
      only: ids of the only references that count as input: ``key(ref_id)``.
    """

    labeled: StagedIndex | None = None
    changed: bool = False
    only: StagedIndex | None = None


def labeled_key(identity: str, facts: tuple[int | None, str | None] | None = None) -> bytes:
    """The key of a row: its ``image_id`` itself; with ``facts`` a hash of it, its size and its version.


    Args:
      identity: the column ``image_id``, or what ``unsure_identity`` makes of a row that has none.
      facts: size and version, if they count.
    """
    if facts is None:
        return bytes.fromhex(identity)
    size, version = facts
    return key(identity, str(size), version or "")


def unsure_identity(uri: str) -> str | None:
    """The identity of a web address without a query, for rows of schema version 1; None for other locations.

    Version 1 dropped the whole query of a signed URL. So an address without a query may have had one, and is the
    address of a reference only if that has none either.
    """
    if scheme(uri) not in ("http", "https") or "?" in uri:
        return None
    return key("schema version 1", image_id(uri)).hex()


class Selection:
    """The indexes, open.

    Raises:
      ModuleError: one of them is not what the launcher staged.
    """

    def __init__(self, options: SelectionOptions) -> None:
        self._labeled = _open(options.labeled)
        self._only = _open(options.only)
        self._changed = options.changed

    def is_input(self, ref_id: str) -> bool:
        """Whether the reference of this id counts as input."""
        return self._only is None or key(encodable(ref_id)) in self._only

    def with_labeled(
        self, elements: Iterator[ImageRef | Failure]
    ) -> Iterator[tuple[ImageRef | Failure, bool]]:
        """Each element with whether an earlier run has labeled it."""
        if not self._labeled:
            yield from ((element, False) for element in elements)
        elif not self._changed:
            yield from ((element, self._is_labeled(element)) for element in elements)
        else:
            yield from self._asking(elements)

    def _asking(self, elements: Iterator[ImageRef | Failure]) -> Iterator[tuple[ImageRef | Failure, bool]]:
        waiting: deque[tuple[ImageRef | Failure, Future[bool]]] = deque()
        threads = DaemonPool(_STAT_THREADS, "stat")
        try:
            for element in elements:
                if (
                    isinstance(element, Failure)
                    or element.data is not None
                    or element.listing_stat is not None
                ):
                    yield element, self._is_labeled(element)
                    continue
                waiting.append((element, threads.submit(self._is_labeled, element)))
                if len(waiting) == _STAT_WINDOW:
                    first, answer = waiting.popleft()
                    yield first, threads.result(answer)
            for first, answer in waiting:
                yield first, threads.result(answer)
        finally:
            threads.close()

    def _is_labeled(self, element: ImageRef | Failure) -> bool:
        assert self._labeled is not None
        if isinstance(element, Failure):
            return False
        facts = None
        if self._changed:
            facts = _facts(element)
            if facts is None:
                return False
        identity = element.image_id or _identity(element)
        if labeled_key(identity, facts) in self._labeled:
            return True
        unsure = None if element.data is not None else unsure_identity(element.location)
        return unsure is not None and labeled_key(unsure, facts) in self._labeled


def _identity(ref: ImageRef) -> str:
    return image_id(ref.location) if ref.data is None else image_id_of_bytes(ref.data)


def _facts(ref: ImageRef) -> tuple[int | None, str | None] | None:
    """Size and version of the image as it is now; None where that cannot be said without fetching it."""
    if ref.listing_stat is not None:
        return ref.listing_stat
    if ref.data is not None:
        return len(ref.data), None
    if scheme(ref.location) not in (None, "gs", "s3"):
        return None
    try:
        file = storage.stat(ref.location)
    except (OSError, ValueError):
        return None  # what is wrong with it, whoever fetches it will say
    return file.size, file.version


def _open(index: StagedIndex | None) -> KeyIndex | None:
    return None if index is None else KeyIndex(open_artifact(index.path, index.sha256).content)
