"""Fetches images again for the thumbnails of a page."""

from __future__ import annotations

import base64
import os
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from beamlabel.pipeline.errors import UsageError
from beamlabel.pipeline.options.fetch_rights import FetchRights
from beamlabel.transforms import storage
from beamlabel.transforms.decoding.decode import DecodeOptions
from beamlabel.transforms.decoding.picture.options import DEFAULT_DECODE_DEADLINE
from beamlabel.transforms.decoding.thumbnail import thumbnail
from beamlabel.transforms.loading.fetch import FetchOptions
from beamlabel.transforms.loading.load_images import load_one
from beamlabel.transforms.loading.load_options import LoadOptions
from beamlabel.transforms.loading.web.http_options import PER_HOST, HttpOptions
from beamlabel.transforms.records import ImageRef, LoadedImage
from beamlabel.transforms.shapes import COUNT, FLAG, NUMBER, TEXT, check, optional
from beamlabel.transforms.storage.billing import billing_project
from beamlabel.transforms.storage.uris import resolve

_FETCH_THREADS = 16
# Manifests of older versions lack some of these.
_RAN = {
    "max_bytes": COUNT,
    "max_pixels": COUNT,
    "fetch_deadline": NUMBER,
    "decode_deadline?": NUMBER,
    "base_dir?": optional(TEXT),
    "user_agent?": optional(TEXT),
    "ignore_robots_tag?": FLAG,
    "http_per_host?": COUNT,
    "allowed_schemes?": optional([TEXT]),
}
_MADE = {"height": COUNT, "width": COUNT, "crop": optional(NUMBER), "color_profile?": TEXT}


def fetched_thumbnails(
    rows: Iterable[Mapping[str, Any]],
    manifest: Mapping[str, Any],
    base_dir: str | None,
    rights: FetchRights,
) -> dict[str, str]:
    """Maps each ``ref_id`` to a JPEG in base64. Inline images and images that cannot be fetched are left out.

    Args:
      rows: rows with ``uri`` and ``ref_id``.
      manifest: manifest of the run that labeled them.
      base_dir: the base of relative references; None: the run's base.
      rights: permissions to fetch.

    Raises:
      UsageError: see ``load_options_of``.
    """
    load = load_options_of(manifest["options"], manifest.get("preprocessing"), rights)
    base = base_of(manifest, base_dir)

    def fetched(row: Mapping[str, Any]) -> tuple[str, str | None]:
        image = load_one(ImageRef(row["uri"], row["ref_id"], resolve(row["uri"], base)), load)
        if isinstance(image, LoadedImage):
            return row["ref_id"], base64.b64encode(thumbnail(image.pixels)).decode()
        return row["ref_id"], None

    with ThreadPoolExecutor(_FETCH_THREADS, thread_name_prefix="thumbnails") as pool:
        return {ref_id: picture for ref_id, picture in pool.map(fetched, rows) if picture is not None}


def base_of(manifest: Mapping[str, Any], base_dir: str | None) -> str:
    """The base of relative references: an absolute path or a URI.

    Args:
      manifest: manifest of the run.
      base_dir: from the command line; None: the run's base, or else the current directory.
    """
    return storage.absolute(base_dir or manifest["options"].get("base_dir") or os.getcwd())  # noqa: PTH109 (a string)


def load_options_of(ran: Any, made: Any, rights: FetchRights) -> LoadOptions:
    """The options to load images as a run did, within the permissions of the command line.

    Args:
      ran, made: ``options`` and ``preprocessing`` of its manifest. They set limits and may forbid schemes, but
        grant no permission, since anybody may have written them.
      rights: permissions to fetch.

    Raises:
      UsageError: the manifest lacks these options, or they are damaged.
    """
    try:
        check(ran, _RAN, "options")
        check(made, _MADE, "preprocessing")
        return _load_options(ran, made, rights)
    except ValueError as error:
        raise UsageError(f"The manifest is damaged: {error}") from error


def _load_options(ran: Mapping[str, Any], made: Mapping[str, Any], rights: FetchRights) -> LoadOptions:
    schemes = rights.allowed_schemes or ran.get("allowed_schemes")
    return LoadOptions(
        FetchOptions(
            max_bytes=ran["max_bytes"],
            deadline=ran["fetch_deadline"],
            allow_http=rights.allow_http,
            allow_private_hosts=rights.allow_private_hosts,
            # Manifests of older versions lack these options; no manifest holds the values of headers.
            http=HttpOptions(
                user_agent=ran.get("user_agent"),
                ignore_robots_tag=ran.get("ignore_robots_tag", False),
                per_host=ran.get("http_per_host", PER_HOST),
            ),
            billing_project=billing_project(),
            allowed_schemes=None if schemes is None else tuple(schemes),
        ),
        DecodeOptions(
            made["height"],
            made["width"],
            crop=made["crop"],
            max_pixels=ran["max_pixels"],
            decode_deadline=ran.get("decode_deadline", DEFAULT_DECODE_DEADLINE),  # older versions had none
            color_profile=made.get("color_profile", "ignore"),  # schema version 1 ignored profiles
        ),
    )
