"""What earlier runs know of an image, against what was fetched; and what the next runs have to know of it."""

from __future__ import annotations

import dataclasses

from beamlabel.transforms import storage
from beamlabel.transforms.loading.fetch import Fetched, FetchOptions
from beamlabel.transforms.records import Failure, ImageRef, Reason, Skipped, SkipReason
from beamlabel.transforms.storage.identity import content_bits, content_hash
from beamlabel.transforms.storage.uris import scheme


def skipped_as_known(ref: ImageRef, fetched: Fetched) -> Skipped | None:
    """What becomes of an image whose bytes an earlier run has dealt with; None if they are others."""
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
    """With the version that the listing told, if fetching tells none.

    It is the version of these bytes or of earlier ones, so it can never make later bytes look unchanged.
    """
    if fetched.version is not None or ref.listing_stat is None:
        return fetched
    return dataclasses.replace(fetched, version=ref.listing_stat[1])


def with_stat(failure: Failure, ref: ImageRef, options: FetchOptions) -> Failure:
    """A failure to fetch with the size and version of the image, if these are why it failed.

    They are asked for after the fact, and count only if they give the same failure.
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
