"""Hashes that match the images of a truth with the rows of an output."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import xxhash

from beamlabel.pipeline.truth.image_names import composed
from beamlabel.transforms.storage.identity import image_id
from beamlabel.transforms.storage.uris import public_uri, resolve, scheme

NONE = 0
"""The hash of a missing value."""


def text_key(text: str) -> int:
    """64-bit hash of a text; the chance of any collision among a million truths and a million rows is 5e-8."""
    return xxhash.xxh3_64_intdigest(text.encode("utf-8", "surrogatepass")) or 1


def id_key(identity: str) -> int:
    """First 64 bits of an ``image_id``, which is a hash itself."""
    try:
        return int(identity[:16], 16) or 1
    except ValueError:
        return NONE


def location_key(name: str, base: str) -> int:
    """The ``id_key`` of the image at ``name``, which is absolute or relative to ``base``."""
    return id_key(image_id(resolve(name, base)))


def is_relative(name: str) -> bool:
    """Whether a name is neither an absolute path nor a URI."""
    return not name.startswith("/") and scheme(name) is None and not name.lower().startswith("file:")


def exact_key(name: str) -> int:
    """The key of a URI as it stands in rows, without credentials."""
    # Most are local paths, which contain no credentials.
    return text_key(name if name.startswith("/") else public_uri(name))


def tail_key(parts: Sequence[str]) -> int:
    """The key of the last parts of a location, after ``composed``."""
    return text_key(composed("/".join(parts)))


def keys_of(keys: Iterable[int]) -> np.ndarray:
    """Keys as uint64[N]."""
    return np.fromiter(keys, np.uint64)
