"""The thumbnails of a page that is made of rows, fetched anew."""

from __future__ import annotations

import base64
import os
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from beamlabel.transforms import storage
from beamlabel.transforms.decoding.decode import DecodeOptions
from beamlabel.transforms.decoding.picture.options import DEFAULT_DECODE_DEADLINE
from beamlabel.transforms.decoding.thumbnail import thumbnail
from beamlabel.transforms.loading.fetch import FetchOptions
from beamlabel.transforms.loading.load_images import load_one
from beamlabel.transforms.loading.load_options import LoadOptions
from beamlabel.transforms.loading.web.http_options import PER_HOST, HttpOptions
from beamlabel.transforms.records import ImageRef, LoadedImage
from beamlabel.transforms.storage.billing import billing_project
from beamlabel.transforms.storage.uris import resolve

_FETCH_THREADS = 16


def fetched_thumbnails(
    rows: Iterable[Mapping[str, Any]], manifest: Mapping[str, Any], base_dir: str | None
) -> dict[str, str]:
    """Reference → JPEG in base64, of the images that can be had; inline ones cannot."""
    ran, load = manifest["options"], load_options_of(manifest["options"], manifest["preprocessing"])
    base = storage.absolute(base_dir or ran["base_dir"] or os.getcwd())  # noqa: PTH109 (a string is wanted)

    def fetched(row: Mapping[str, Any]) -> tuple[str, str | None]:
        image = load_one(ImageRef(row["uri"], row["ref_id"], resolve(row["uri"], base)), load)
        if isinstance(image, LoadedImage):
            return row["ref_id"], base64.b64encode(thumbnail(image.pixels)).decode()
        return row["ref_id"], None

    with ThreadPoolExecutor(_FETCH_THREADS, thread_name_prefix="thumbnails") as pool:
        return {ref_id: picture for ref_id, picture in pool.map(fetched, rows) if picture is not None}


def load_options_of(ran: Mapping[str, Any], made: Mapping[str, Any]) -> LoadOptions:
    """How a run loaded its images.

    Args:
      ran, made: ``options`` and ``preprocessing`` of its manifest.
    """
    return LoadOptions(
        FetchOptions(
            max_bytes=ran["max_bytes"],
            deadline=ran["fetch_deadline"],
            allow_http=ran["allow_http"],
            allow_private_hosts=ran["allow_private_hosts"],
            # Earlier runs do not have these; no run has the values of its headers.
            http=HttpOptions(
                user_agent=ran.get("user_agent"),
                ignore_robots_tag=ran.get("ignore_robots_tag", False),
                per_host=ran.get("http_per_host", PER_HOST),
            ),
            billing_project=billing_project() or ran.get("billing_project"),
            allowed_schemes=None if ran.get("allowed_schemes") is None else tuple(ran["allowed_schemes"]),
        ),
        DecodeOptions(
            made["height"],
            made["width"],
            crop=made["crop"],
            max_pixels=ran["max_pixels"],
            decode_deadline=ran.get("decode_deadline", DEFAULT_DECODE_DEADLINE),  # earlier runs had none
            color_profile=made.get("color_profile", "ignore"),  # schema version 1 knew no profiles
        ),
    )
