"""The hashes by which the images of a truth and the rows of an output find each other."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import xxhash

from beamlabel.pipeline.truth.image_names import composed
from beamlabel.transforms.storage.identity import image_id
from beamlabel.transforms.storage.uris import public_uri, resolve, scheme

NONE = 0
"""The hash of what has none."""


def text_key(text: str) -> int:
    """64 bits of a text: of a million truths and a million rows any two have the same with a probability of 5e-8."""
    return xxhash.xxh3_64_intdigest(text.encode("utf-8", "surrogatepass")) or 1


def id_key(identity: str) -> int:
    """64 bits of an ``image_id``, which is a hash."""
    try:
        return int(identity[:16], 16) or 1
    except ValueError:
        return NONE


def location_key(name: str, base: str) -> int:
    """The ``id_key`` of the image at a name that is relative to a folder, or absolute."""
    return id_key(image_id(resolve(name, base)))


def is_relative(name: str) -> bool:
    """Whether a name is neither an absolute path nor a URI."""
    return not name.startswith("/") and scheme(name) is None and not name.lower().startswith("file:")


def exact_key(name: str) -> int:
    """The key of a URI as rows have it, without credentials."""
    # Most are local paths, which hold no credentials.
    return text_key(name if name.startswith("/") else public_uri(name))


def tail_key(parts: Sequence[str]) -> int:
    """The key of the last parts of a location, ``composed``."""
    return text_key(composed("/".join(parts)))


def keys_of(keys: Iterable[int]) -> np.ndarray:
    """Keys as uint64[N]."""
    return np.fromiter(keys, np.uint64)
