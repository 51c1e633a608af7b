"""Comparison of fetched images with earlier runs, and facts for later runs."""

from __future__ import annotations

import dataclasses

from beamlabel.transforms import storage
from beamlabel.transforms.loading.fetch import Fetched, FetchOptions
from beamlabel.transforms.records import Failure, ImageRef, Reason, Skipped, SkipReason
from beamlabel.transforms.storage.identity import content_bits, content_hash
from beamlabel.transforms.storage.uris import scheme


def skipped_as_known(ref: ImageRef, fetched: Fetched) -> Skipped | None:
    """The ``Skipped`` of an image whose bytes an earlier run handled; None for other bytes."""
    if ref.known is None:
        return None
    digest = content_hash(fetched.data)
    bits = content_bits(digest)
    if bits and bits == ref.known.row:
        reason = SkipReason.UNCHANGED
    elif bits and bits == ref.known.failure:
        reason = SkipReason.KNOWN_FAILURE
    else:
        return None
    ref = ref if ref.data is None else dataclasses.replace(ref, data=None)
    return Skipped(ref, reason, len(fetched.data), fetched.version, digest)


def with_listed_version(fetched: Fetched, ref: ImageRef) -> Fetched:
    """Adds the version of the listing if the fetch returned none.

    It belongs to these bytes or to earlier ones, so it never makes later bytes look unchanged.
    """
    if fetched.version is not None or ref.listing_stat is None:
        return fetched
    return dataclasses.replace(fetched, version=ref.listing_stat[1])


def with_stat(failure: Failure, ref: ImageRef, options: FetchOptions) -> Failure:
    """Adds the image's size and version to a failure that its size caused.

    They are requested after the failure, and added only if they confirm it.
    """
    if failure.reason not in (Reason.EMPTY_FILE, Reason.TOO_MANY_BYTES):
        return failure
    size: int | None
    if ref.data is not None:
        size, version = len(ref.data), None
    elif scheme(ref.location) in ("http", "https"):
        return failure
    else:
        try:
            stored = storage.stat(ref.location)
        except (OSError, ValueError):
            return failure
        size, version = stored.size, stored.version
    if size is None or not (size == 0 if failure.reason is Reason.EMPTY_FILE else size > options.max_bytes):
        return failure
    return dataclasses.replace(failure, source_bytes=size, source_version=version)
