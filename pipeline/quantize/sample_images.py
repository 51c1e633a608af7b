"""Reads and decodes a sample of the input's images as in the job, without submitting a pipeline."""

from __future__ import annotations

import dataclasses
import heapq
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from beamlabel.pipeline.errors import UsageError
from beamlabel.transforms.inputs.selection import Selection
from beamlabel.transforms.inputs.sources.source import SourceOptions
from beamlabel.transforms.loading.load_images import load_one
from beamlabel.transforms.loading.load_options import LoadOptions
from beamlabel.transforms.records import ImageRef, InputFile, LoadedImage
from beamlabel.transforms.storage.errors import is_user_error
from beamlabel.transforms.storage.identity import image_id, image_id_of_bytes
from beamlabel.transforms.units.open_unit import open_unit
from beamlabel.transforms.units.plan_units import plan_files

# The sample comes from the first references, since an input may name billions.
FIRST_REFERENCES = 20_000
# Extra share of references, since some images may not load or may be copies.
_SPARE = 1.25
_THREADS = 16


@dataclass(frozen=True)
class InputImages:
    """The input of a job, and the options for reading and decoding it.

    Attributes:
      files: the input files.
      source: options for reading references from files.
      load: options for loading images.
    """

    files: tuple[InputFile, ...]
    source: SourceOptions
    load: LoadOptions


def sample_images(images: InputImages, count: int) -> list[np.ndarray]:
    """Different images of the input; repeated calls give the same ones.

    Takes those of the first ``FIRST_REFERENCES`` with the smallest ``image_id``, which is a hash.

    Args:
      images: the input.
      count: number of images wanted.

    Returns:
      uint8[height, width, 3] each, at most ``count``; fewer if the input has fewer that can be loaded.

    Raises:
      UsageError: the input cannot be read.
    """
    asked = images.source.limit
    limit = FIRST_REFERENCES if asked is None else min(FIRST_REFERENCES, asked)
    source = dataclasses.replace(images.source, limit=limit)
    try:
        chosen = heapq.nsmallest(
            round(count * _SPARE), _references(images.files, source), key=lambda identified: identified[0]
        )
    except (OSError, ValueError) as error:
        if not is_user_error(error):
            raise
        raise UsageError(f"--input: {error}") from error
    found: dict[str | None, np.ndarray] = {}
    with ThreadPoolExecutor(_THREADS) as threads:
        for loaded in threads.map(lambda identified: load_one(identified[1], images.load), chosen):
            if isinstance(loaded, LoadedImage) and len(found) < count:
                # A copy could be in the calibration and in the test.
                found.setdefault(loaded.info.content_hash, loaded.pixels)
    return list(found.values())


def _references(files: tuple[InputFile, ...], source: SourceOptions) -> Iterator[tuple[str, ImageRef]]:
    """Yields references with their ``image_id``, each image once."""

    selection = Selection(source.selection)
    seen: set[str] = set()
    for unit in plan_files(enumerate(files), source):
        for ref in open_unit(unit, source, selection):
            if not isinstance(ref, ImageRef):
                continue
            identity = ref.image_id
            if identity is None:
                identity = image_id(ref.location) if ref.data is None else image_id_of_bytes(ref.data)
            if identity not in seen:
                seen.add(identity)
                yield identity, ref
