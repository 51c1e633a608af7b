"""A sample of the input's images, read and decoded as the job does it. Does not submit a pipeline."""

from __future__ import annotations

import dataclasses
import heapq
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from beamlabel.pipeline.errors import UsageError
from beamlabel.pipeline.job.preflight import Inputs
from beamlabel.transforms.inputs.selection import Selection
from beamlabel.transforms.inputs.sources.source import SourceOptions
from beamlabel.transforms.loading.load_images import LoadOptions, load_one
from beamlabel.transforms.records import ImageRef, LoadedImage
from beamlabel.transforms.storage.errors import is_user_error
from beamlabel.transforms.storage.identity import image_id, image_id_of_bytes
from beamlabel.transforms.units.open_unit import open_unit
from beamlabel.transforms.units.plan_units import plan_files

# A sample is of the first references: an input may name billions.
FIRST_REFERENCES = 20_000
# Chosen beyond those that are needed, in case that images cannot be loaded or are copies.
_SPARE = 1.25
_THREADS = 16


def sample_images(inputs: Inputs, source: SourceOptions, load: LoadOptions, count: int) -> list[np.ndarray]:
    """Different images of the input, the same ones each time.

    Of the first ``FIRST_REFERENCES`` those are taken whose ``image_id`` is smallest, which is a hash.

    Args:
      inputs: the input files.
      source, load: as the job's.
      count: of images that are wanted.

    Returns:
      uint8[height, width, 3] each, at most ``count``; fewer if the input has fewer that can be loaded.

    Raises:
      UsageError: the input cannot be read.
    """
    limit = min(FIRST_REFERENCES, FIRST_REFERENCES if source.limit is None else source.limit)
    source = dataclasses.replace(source, limit=limit)
    try:
        chosen = heapq.nsmallest(
            round(count * _SPARE), _references(inputs, source), key=lambda identified: identified[0]
        )
    except (OSError, ValueError) as error:
        if not is_user_error(error):
            raise
        raise UsageError(f"--input: {error}") from error
    found: dict[str | None, np.ndarray] = {}
    with ThreadPoolExecutor(_THREADS) as threads:
        for loaded in threads.map(lambda identified: load_one(identified[1], load), chosen):
            if isinstance(loaded, LoadedImage) and len(found) < count:
                # Copies of an image would be in the calibration and in the test.
                found.setdefault(loaded.info.content_hash, loaded.pixels)
    return list(found.values())


def _references(inputs: Inputs, source: SourceOptions) -> Iterator[tuple[str, ImageRef]]:
    """Each reference with its ``image_id``, each image once."""
    selection = Selection(source.selection)
    seen: set[str] = set()
    for unit in plan_files(enumerate(inputs.files), source):
        for ref in open_unit(unit, source, selection):
            if not isinstance(ref, ImageRef):
                continue
            identity = ref.image_id
            if identity is None:
                identity = image_id(ref.location) if ref.data is None else image_id_of_bytes(ref.data)
            if identity not in seen:
                seen.add(identity)
                yield identity, ref
