"""Finds the current entries of some images: a pure function over arrays."""

from __future__ import annotations

import enum

import numpy as np

from beamlabel.pipeline.current.entries import FAILURE, ROW, TOMBSTONE, TOUCHED, Why


class Fate(enum.IntEnum):
    """The fate of a row or a failure; the names are those of the counts in a manifest."""

    KEPT = 0
    SUPERSEDED = 1
    DELETED = 2
    FAILED_SINCE = 3
    OTHER_MODULE = 4


def resolve(entries: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Finds the current outcome of each image, at most one.

    The newest row counts; with equal ``time`` the row of the later run, then the one with the higher position. It does
    not count

    - if a tombstone is newer: deleted;
    - if a newer failure shows that the image is gone (``not_found``) or has changed (another content hash or, without
      one, another version or size), or has a lasting reason and does not show that the image is the same: failed
      since. A passing failure, such as a timeout, of an image that may be the same does not void the row;
    - if another module made it: failed since, if the current module has tried and failed; else of another module.

    If no row counts, the newest failure is the image's outcome, unless a row or a tombstone is newer. Of the versions
    seen since, the newest is kept if it has the outcome's content.

    Args:
      entries: array of ``ENTRY`` with all entries of each image.

    Returns:
      The entries in another order, and the ``Fate`` of each; for a tombstone ``SUPERSEDED``.
    """
    order = np.lexsort([entries[name] for name in ("place", "kind", "rank", "time", "low", "high")])
    ordered = entries[order]
    fates = np.full(len(ordered), Fate.SUPERSEDED, np.uint8)
    if not len(ordered):
        return ordered, fates
    is_first = np.ones(len(ordered), bool)
    is_first[1:] = (ordered["high"][1:] != ordered["high"][:-1]) | (ordered["low"][1:] != ordered["low"][:-1])
    image = np.cumsum(is_first) - 1
    row, failure = (_newest(ordered, image, kind) for kind in (ROW, FAILURE))
    deleted_at = np.full(image[-1] + 1, np.iinfo(np.int64).min)
    tombs = ordered["kind"] == TOMBSTONE
    np.maximum.at(deleted_at, image[tombs], ordered["time"][tombs])

    has_row, has_failure = row >= 0, failure >= 0
    row_time, failure_time = (np.where(at >= 0, ordered["time"][at], 0) for at in (row, failure))
    is_deleted = has_row & (deleted_at > row_time)
    is_replaced = _replaced(ordered, image, row)
    tried = np.flatnonzero((ordered["kind"] == FAILURE) & ordered["fits"])
    newest_try = np.full(len(row), -1)
    np.maximum.at(newest_try, image[tried], tried)
    fits = np.where(has_row, ordered["fits"][row], False)
    is_failed = has_row & ~is_deleted & (is_replaced | (~fits & (newest_try > row)))
    is_other = has_row & ~is_deleted & ~is_failed & ~fits
    fate = np.select(
        [is_deleted, is_failed, is_other], [Fate.DELETED, Fate.FAILED_SINCE, Fate.OTHER_MODULE], Fate.KEPT
    )
    fates[row[has_row]] = fate[has_row]
    stands = has_failure & (failure > row) & ~(has_row & (fate == Fate.KEPT))
    failure_fate = np.where(deleted_at > failure_time, Fate.DELETED, Fate.KEPT)
    fates[failure[stands]] = failure_fate[stands]
    _keep_newest_version(ordered, image, fates)
    return ordered, fates


def _newest(ordered: np.ndarray, image: np.ndarray, kind: int) -> np.ndarray:
    """The position of each image's newest entry of a kind; -1 if there is none."""
    places = np.flatnonzero(ordered["kind"] == kind)
    newest = np.full(image[-1] + 1, -1)
    newest[image[places]] = places  # of repeated indices numpy keeps the last value
    return newest


def _keep_newest_version(ordered: np.ndarray, image: np.ndarray, fates: np.ndarray) -> None:
    """Keeps the newest version of each image that shows its outcome's content under another version or size."""
    version, outcome = _newest(ordered, image, TOUCHED), np.full(image[-1] + 1, -1)
    kept = np.flatnonzero(fates == Fate.KEPT)
    outcome[image[kept]] = kept
    both = (version >= 0) & (outcome >= 0)
    seen, known = ordered[version[both]], ordered[outcome[both]]
    is_same = (seen["content"] == known["content"]) & (seen["content"] != 0) & (seen["time"] >= known["time"])
    is_other = (seen["version"] != known["version"]) | (seen["bytes"] != known["bytes"])
    fates[version[both][is_same & is_other]] = Fate.KEPT


def _replaced(ordered: np.ndarray, image: np.ndarray, row: np.ndarray) -> np.ndarray:
    """For each image, whether a failure after its newest row shows that the row's image no longer exists."""
    places = np.flatnonzero(ordered["kind"] == FAILURE)
    places = places[(row[image[places]] >= 0) & (places > row[image[places]])]
    failed, labeled = ordered[places], ordered[row[image[places]]]
    hashed = (failed["content"] != 0) & (labeled["content"] != 0)
    versioned = (failed["version"] != 0) & (labeled["version"] != 0)
    sized = (failed["bytes"] >= 0) & (labeled["bytes"] >= 0)
    other_version = versioned & (failed["version"] != labeled["version"])
    other_size = sized & (failed["bytes"] != labeled["bytes"])
    other_content = failed["content"] != labeled["content"]
    is_other = np.where(hashed, other_content, other_version | other_size)
    alike = (failed["version"] == labeled["version"]) & sized & ~other_size
    is_same = np.where(hashed, ~other_content, alike)
    ends = (failed["why"] == Why.GONE) | is_other | ((failed["why"] == Why.LASTING) & ~is_same)
    replaced = np.zeros(len(row), bool)
    replaced[image[places[ends]]] = True
    return replaced
