"""The references to label: those that no earlier run labeled, or only those that one failed.

It also finds the references that need not be fetched because an earlier row has their features. The launcher gathers
the rows of earlier runs (``pipeline/earlier``) into indexes of keys, which are staged once; ``OpenUnit`` looks up
each reference. Nothing is joined, and no row of the earlier runs is shuffled.
"""

from __future__ import annotations

import dataclasses
import hashlib
import struct
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future
from dataclasses import dataclass
from typing import NamedTuple

from beamlabel.transforms import storage
from beamlabel.transforms.inputs.key_index import KeyIndex, key
from beamlabel.transforms.records import Failure, ImageRef, Known, SkipReason
from beamlabel.transforms.rows.feature_places import FEATURE_PLACE, FeaturePlace
from beamlabel.transforms.storage.host_cache import open_artifact
from beamlabel.transforms.storage.identity import image_id, image_id_of_bytes
from beamlabel.transforms.storage.uris import encodable, scheme
from beamlabel.transforms.worker.daemon_pool import DaemonPool

# Concurrent requests for the size and version of an image: each waits for a network.
_STAT_THREADS = 64
_STAT_WINDOW = 256

Stat = tuple["int | None", "str | None"]
"""Size in bytes and version of an image."""

STATE = struct.Struct("<QQ")
"""The value of an image in an index, if the index has values: ``stat_hash``, and ``identity.content_bits``."""


@dataclass(frozen=True)
class StagedIndex:
    """A staged index of keys.

    Attributes:
      path: of the file.
      sha256: of the file, in hex.
      value_bytes: length of the value after each key.
    """

    path: str
    sha256: str
    value_bytes: int = 0


@dataclass(frozen=True)
class SelectionOptions:
    """The indexes that select references.

    Attributes:
      labeled: the images of the existing rows, by ``image_id``; with a ``STATE`` if changes count.
      failed: the images that failed for a lasting reason, with a ``STATE``.
      only: ids of the only references that count as input: ``key(ref_id)``.
      live: the images whose continued existence this run's listing shows, see ``pipeline/earlier/tombstones.py``.
      features: the images with known features, each with a ``FEATURE_PLACE``.
      feature_shards: the files with these features, see ``earlier_shards.listed``.
    """

    labeled: StagedIndex | None = None
    failed: StagedIndex | None = None
    only: StagedIndex | None = None
    live: StagedIndex | None = None
    features: StagedIndex | None = None
    feature_shards: StagedIndex | None = None

    @property
    def asks_for_stats(self) -> bool:
        """Whether size and version of listed images have to travel with them."""
        return self.failed is not None or (self.labeled is not None and self.labeled.value_bytes > 0)


def stat_hash(size: int | None, version: str | None) -> int:
    """64 bits over size and version, never 0."""
    text = f"{size}\0{version or ''}".encode("utf-8", "surrogatepass")
    return int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "little") or 1


def unsure_identity(uri: str) -> str | None:
    """The identity of a web address without a query, for rows of schema version 1; None for other locations.

    Version 1 dropped the whole query of a signed URL. So an address without a query may have had one, and matches a
    reference only if that has no query either.
    """
    if scheme(uri) not in ("http", "https") or "?" in uri:
        return None
    return key("schema version 1", image_id(uri)).hex()


class _State(NamedTuple):
    stat: int
    content: int


class Decision(NamedTuple):
    """The decision on a reference.

    Attributes:
      element: the reference, or the failure that took its place.
      skipped: why it is left out; None if it is not.
      features: the earlier row with its features, so that the image need not be fetched; None if there is none.
      version: the current one of the image, if ``features`` is set and the version was requested.
    """

    element: ImageRef | Failure
    skipped: SkipReason | None = None
    features: FeaturePlace | None = None
    version: str | None = None


class _Known(NamedTuple):
    """An image in earlier runs: its newest row, its newest failure, and its features."""

    row: _State | None
    failure: _State | None
    features: FeaturePlace | None


class Selection:
    """The open indexes.

    Raises:
      ModuleError: an index differs from the one that the launcher staged.
    """

    def __init__(self, options: SelectionOptions) -> None:
        self._labeled = _open(options.labeled)
        self._failed = _open(options.failed)
        self._only = _open(options.only)
        self._changed = options.labeled is not None and options.labeled.value_bytes > 0
        self.live = _open(options.live)
        self._features = _open(options.features)

    @property
    def decides(self) -> bool:
        """Whether there is anything to decide; otherwise all references are labeled."""
        return bool(self._labeled or self._failed or self._features)

    def is_input(self, ref_id: str) -> bool:
        """Whether the reference with this id counts as input."""
        return self._only is None or key(encodable(ref_id)) in self._only

    def decided(self, elements: Iterator[ImageRef | Failure]) -> Iterator[Decision]:
        """The decision on each element; in another order if an answer takes time."""
        if not self.decides:
            yield from map(Decision, elements)
            return
        waiting: deque[Future[Decision]] = deque()
        threads = DaemonPool(_STAT_THREADS, "stat")
        try:
            for element in elements:
                decision = self._decide(element)
                if decision is not None:
                    yield decision
                    continue
                assert isinstance(element, ImageRef)
                waiting.append(threads.submit(self._ask, element))
                if len(waiting) == _STAT_WINDOW:
                    yield threads.result(waiting.popleft())
            for answer in waiting:
                yield threads.result(answer)
        finally:
            threads.close()

    def _decide(self, element: ImageRef | Failure) -> Decision | None:
        """The decision, if it needs no request to the storage."""
        if isinstance(element, Failure):
            return Decision(element)
        known = self._known(element)
        if not self._changed:
            if known.row is not None:
                return Decision(element, SkipReason.LABELED)
            if known.features is not None:
                return Decision(element, features=known.features)
        if known == (None, None, None):
            return Decision(element)
        if _must_ask(element):
            return None
        return _compared(element, known, _told_stat(element))

    def _ask(self, ref: ImageRef) -> Decision:
        """The decision by the current size and version of the image."""
        try:
            file = storage.stat(ref.location)
            stat = None if file.version is None else (file.size, file.version)
        except (OSError, ValueError):
            stat = None  # fetching the image will report the error
        return _compared(ref, self._known(ref), stat)

    def _known(self, ref: ImageRef) -> _Known:
        identity = identity_of(ref)
        row = _state(self._labeled, identity)
        if row is None and ref.data is None and (unsure := unsure_identity(ref.location)) is not None:
            row = _state(self._labeled, unsure)
        return _Known(row, _state(self._failed, identity), _feature_place(self._features, identity))


def identity_of(ref: ImageRef) -> str:
    """The ``image_id`` of a reference, also of an inline image that is not loaded yet."""
    if ref.image_id is not None:
        return ref.image_id
    return image_id(ref.location) if ref.data is None else image_id_of_bytes(ref.data)


def _state(index: KeyIndex | None, identity: str) -> _State | None:
    place = None if index is None else index.find(bytes.fromhex(identity))
    if index is None or place is None:
        return None
    value = index.value(place)
    return _State(*STATE.unpack(value)) if value else _State(0, 0)


def _feature_place(index: KeyIndex | None, identity: str) -> FeaturePlace | None:
    place = None if index is None else index.find(bytes.fromhex(identity))
    if index is None or place is None:
        return None
    return FeaturePlace(*FEATURE_PLACE.unpack(index.value(place)))


def _must_ask(ref: ImageRef) -> bool:
    """Whether size and version of an image take a request to the storage."""
    return ref.data is None and ref.listing_stat is None and scheme(ref.location) in (None, "gs", "s3")


def _told_stat(ref: ImageRef) -> Stat | None:
    """Size and version from the reference; None if it has no version, since a size alone proves nothing."""
    if ref.listing_stat is not None and ref.listing_stat[1] is not None:
        return ref.listing_stat  # also of a member of an archive, which may carry its bytes
    return None if ref.data is None else (len(ref.data), None)


def _compared(ref: ImageRef, known: _Known, stat: Stat | None) -> Decision:
    row, failure, features = known
    if stat is not None:
        now = stat_hash(*stat)
        if row is not None and row.stat == now:
            return Decision(ref, SkipReason.LABELED)
        if features is not None and features.stat == now:
            return Decision(_fetched(ref, known), features=features, version=stat[1])
        if failure is not None and failure.stat == now:
            return Decision(ref, SkipReason.KNOWN_FAILURE)
    return Decision(_fetched(ref, known))


def _fetched(ref: ImageRef, known: _Known) -> ImageRef:
    """The reference of an image that may be fetched, with the known state of its content."""
    contents = [0 if one is None else one.content for one in (known.row, known.failure)]
    return dataclasses.replace(ref, known=Known(*contents)) if any(contents) else ref


def _open(index: StagedIndex | None) -> KeyIndex | None:
    if index is None:
        return None
    return KeyIndex(open_artifact(index.path, index.sha256).content, index.value_bytes)
