"""The pictures in a training's report: fetches the few images again that it shows."""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import wait
from itertools import islice

from beamlabel.pipeline.train.findings.findings import Confusion, Findings, ImageNote
from beamlabel.transforms.decoding.thumbnail import thumbnail
from beamlabel.transforms.loading.load_images import load_one
from beamlabel.transforms.loading.load_options import LoadOptions
from beamlabel.transforms.records import ImageRef, LoadedImage
from beamlabel.transforms.secrets.logs import get_logger
from beamlabel.transforms.worker.daemon_pool import DaemonPool

MAX_SUSPECTS = 120
MAX_PAIRS = 20
"""Pairs of confused classes with pictures; other pairs are rows of a table."""
MAX_EXAMPLES = 4
"""Pictures per pair."""
SECONDS = 60.0
"""Time limit for fetching all images."""

_THREADS = 16
_LOGGER = get_logger("beamlabel")


def pictures_of(findings: Findings, load: LoadOptions, *, seconds: float = SECONDS) -> dict[str, bytes]:
    """``image_id`` → JPEG of the report's images that can be fetched in time.

    Images are fetched and decoded as in a labeling job, and shrunk as in its report.

    Args:
      findings: name the images by ``location``; images without one get no picture.
      load: permissions for fetching, and the input size of the network.
      seconds: time limit for all images; late ones are left out.
    """
    refs = {
        note.image_id: ImageRef(note.uri, note.image_id, note.location)
        for note in shown_notes(findings)
        if note.location is not None
    }
    end = time.monotonic() + seconds
    pool = DaemonPool(_THREADS, "pictures of the report")
    try:
        futures = {image_id: pool.submit(_picture, ref, load, end) for image_id, ref in refs.items()}
        done, late = wait(futures.values(), timeout=seconds)
    finally:
        pool.close()
    found = {
        image_id: future.result()
        for image_id, future in futures.items()
        if future in done and future.exception() is None
    }
    pictures = {image_id: picture for image_id, picture in found.items() if picture is not None}
    if len(pictures) < len(refs):
        _LOGGER.info(
            "The report has %d of %d pictures: %d took too long, and the others could not be fetched or decoded",
            len(pictures), len(refs), len(late),
        )  # fmt: skip
    return pictures


def shown_suspects(findings: Findings) -> tuple[ImageNote, ...]:
    """The images with a likely wrong truth that the page shows."""
    return findings.suspects[:MAX_SUSPECTS]


def shown_pairs(findings: Findings) -> tuple[Confusion, ...]:
    """The pairs of confused classes that the page shows with pictures."""
    return findings.confusions[:MAX_PAIRS]


def shown_notes(findings: Findings) -> Iterator[ImageNote]:
    """Yields every image on the page, the most important for review first."""
    yield from shown_suspects(findings)
    for pair in shown_pairs(findings):
        yield from islice(pair.examples, MAX_EXAMPLES)


def _picture(ref: ImageRef, load: LoadOptions, end: float) -> bytes | None:
    if time.monotonic() > end:
        return None
    image = load_one(ref, load)
    return thumbnail(image.pixels) if isinstance(image, LoadedImage) else None
