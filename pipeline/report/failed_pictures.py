"""Pictures of failed images: they often show why the job refused a file, such as a truncated JPEG."""

from __future__ import annotations

import base64
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import simplejpeg

from beamlabel.pipeline.options.fetch_rights import FetchRights
from beamlabel.pipeline.report.links import has_names, is_relative
from beamlabel.pipeline.report.thumbnails import base_of, load_options_of
from beamlabel.transforms.decoding.decode import DecodeOptions, decode
from beamlabel.transforms.decoding.jpeg import is_jpeg
from beamlabel.transforms.decoding.picture.jpeg_header import read_header
from beamlabel.transforms.decoding.resize import Target, fit
from beamlabel.transforms.decoding.thumbnail import MAX_SIDE, thumbnail
from beamlabel.transforms.loading.fetch import fetch
from beamlabel.transforms.loading.load_options import LoadOptions
from beamlabel.transforms.reasons import ImageError, Reason
from beamlabel.transforms.secrets.logs import get_logger
from beamlabel.transforms.storage.uris import resolve
from beamlabel.transforms.writing.unit_summary import MAX_TEXT

_LOGGER = get_logger("beamlabel")

MAX_PICTURES = 12
"""Pictures of failed images on a page."""

# Reasons of failures with a file; the others have nothing to show.
_WITH_FILE = frozenset(
    {
        Reason.TRUNCATED,
        Reason.CORRUPT,
        Reason.TOO_MANY_PIXELS,
        Reason.DECODE_ERROR,
        Reason.INFERENCE_ERROR,
        Reason.INFERENCE_TIMEOUT,
        Reason.INTERNAL_ERROR,
    }
)
_THREADS = 4
# Samples that libjpeg reads in about four seconds; it also holds those of a JPEG with several scans in memory.
_MAX_SAMPLES = 1_000_000_000
_MAX_HELD_SAMPLES = 100_000_000
_SCAN = b"\xff\xda"


def with_file(failures: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The examples that may get a picture: the first of each reason, then the second of each, and so on.

    Args:
      failures: failures in the form of ``report_data``.
    """
    found = [
        (place, example)
        for failure in failures
        if failure["reason"] in _WITH_FILE
        for place, example in enumerate(failure["examples"])
        if example["uri"] is not None and len(example["uri"]) < MAX_TEXT
    ]
    return [example for _, example in sorted(found, key=lambda one: one[0])][:MAX_PICTURES]


def add_failed_pictures(
    data: Mapping[str, Any], manifest: Mapping[str, Any], base_dir: str | None, rights: FetchRights
) -> None:
    """Adds the ``thumbnail`` to failed examples without one. Errors are only logged: the page is useful without them.

    Args:
      data: data of the report.
      manifest: the run's manifest, which sets the limits.
      base_dir: the base of relative references; None: the run's base.
      rights: permissions to fetch.
    """
    # A name inside a table may also be the name of another file.
    is_unsure = is_relative if has_names(manifest) else (lambda uri: False)
    lacking = [
        example
        for example in with_file(data["failures"])
        if example["thumbnail"] is None and not is_unsure(example["uri"])
    ]
    if not lacking:
        return
    try:
        load = load_options_of(manifest["options"], manifest.get("preprocessing"), rights)
        base = base_of(manifest, base_dir)
        with ThreadPoolExecutor(_THREADS, thread_name_prefix="failed-pictures") as pool:
            pictures = pool.map(lambda example: _picture(resolve(example["uri"], base), load), lacking)
            for example, picture in zip(lacking, pictures, strict=True):
                example["thumbnail"] = picture
    except Exception:  # the report is useful without this part
        _LOGGER.warning("Could not read failed images, so the report has no pictures of them", exc_info=True)


def _picture(location: str, load: LoadOptions) -> str | None:
    """A JPEG in base64; None if the image cannot be shown."""
    try:
        content = fetch(location, load.fetch).data
        for pixels in _readings(content, load.decode):
            return base64.b64encode(thumbnail(pixels)).decode()
    except (ImageError, OSError, ValueError, RuntimeError, MemoryError) as error:
        _LOGGER.debug("A failed image has no picture: %s", error)
    return None


def _readings(content: bytes, options: DecodeOptions) -> Iterator[Any]:
    """Pixels as the module gets them, then the pixels of a damaged JPEG."""
    try:
        yield decode(content, options).pixels
    except (ImageError, RuntimeError):
        try:
            pixels = _with_faults(content, options)
        except (ImageError, ValueError, MemoryError):
            return
        if pixels is not None:
            yield pixels


def _with_faults(content: bytes, options: DecodeOptions) -> Any:
    """uint8[H, W, 3] of a JPEG, with missing parts in gray; None for another format or a JPEG that is too large."""
    if not is_jpeg(content):
        return None
    header = read_header(content)
    scans = content.count(_SCAN, header.first_scan)
    samples = header.width * header.height * header.components
    most = _MAX_SAMPLES if scans < 2 else _MAX_HELD_SAMPLES
    if header.components not in (1, 3) or samples * max(scans, 1) > _MAX_SAMPLES or samples > most:
        return None
    pixels = simplejpeg.decode_jpeg(
        content,
        "RGB",
        min_height=min(header.height, 2 * MAX_SIDE),
        min_width=min(header.width, 2 * MAX_SIDE),
        strict=False,
    )
    return fit(pixels, header.orientation, Target(options.height, options.width, options.crop))
