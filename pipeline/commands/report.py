"""``beamlabel report OUTPUT``: the page of a published run, made of its shards."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from beamlabel.pipeline import layout
from beamlabel.pipeline.errors import UsageError
from beamlabel.pipeline.options.declare import flag, option, positional
from beamlabel.pipeline.options.parser import parse_command
from beamlabel.pipeline.options.types import TEXT
from beamlabel.transforms import storage

_LOGGER = logging.getLogger("beamlabel")
_FETCH_THREADS = 16


@dataclass(frozen=True, kw_only=True)
class ReportOptions:
    """The published output, and whether images are fetched for its page."""

    output: str = positional(metavar="OUTPUT", help="the run's --output")
    fetch: bool = flag(
        help="fetch the images of sampled rows that have no thumbnail, as the run was allowed to"
    )
    base_dir: str | None = option(
        TEXT, metavar="DIR", help="with --fetch: what relative references are relative to"
    )


def main(argv: list[str]) -> int:
    """Runs the command; returns its exit code.

    Raises:
      UsageError: a wrong argument, or no published run at the output.
    """
    options = parse_command(
        ReportOptions,
        argv,
        command="report",
        description="Writes _report.html into a published output: what happened, with a sample of the rows. It "
        "reads the shards; the pixels are gone, so thumbnails are those of the page that is there, if the run wrote "
        "one by --report, or are fetched anew by --fetch.",
        epilog="Exit codes: 0 written, 2 wrong usage, 3 it broke.",
    )
    return make_report(options.output, fetch=options.fetch, base_dir=options.base_dir)


def make_report(output: str, *, fetch: bool = False, base_dir: str | None = None) -> int:
    """Writes the page; returns the exit code.

    Raises:
      UsageError: there is no published run.
    """
    # Arrow takes a while to import: not for --help.
    from beamlabel.pipeline.report.data import report_data
    from beamlabel.pipeline.report.page import page
    from beamlabel.pipeline.report.summaries import published_summaries

    try:
        output = storage.absolute(output).rstrip("/")
        manifest = json.loads(storage.read_bytes(storage.join(output, layout.MANIFEST)))
    except FileNotFoundError as error:
        raise UsageError(f"OUTPUT {output!r}: no published run of beamlabel is there") from error
    except (OSError, ValueError) as error:
        raise UsageError(f"OUTPUT {output!r}: {error}") from error
    path = storage.join(output, layout.REPORT)
    data = report_data(manifest, published_summaries(output, manifest))
    thumbnails = _kept_thumbnails(path, manifest["run_id"])
    lacking = [row for row in data["sample"] if row["ref_id"] not in thumbnails]
    if fetch and lacking:
        thumbnails |= _fetched_thumbnails(lacking, manifest, base_dir)
    for row in data["sample"]:
        row["thumbnail"] = thumbnails.get(row["ref_id"])
    storage.write_bytes(path, page(data).encode())
    without = sum(row["thumbnail"] is None for row in data["sample"])
    _LOGGER.info(
        "%s: %d sampled rows, %d of them without a thumbnail%s",
        path, len(data["sample"]), without, "" if fetch or not without else "; --fetch would get them",
    )  # fmt: skip
    return 0


def _kept_thumbnails(path: str, run_id: str) -> dict[str, str]:
    """Reference → JPEG in base64, out of the page that is there, if it is this run's."""
    from beamlabel.pipeline.report.page import data_of_page

    if not storage.exists(path):
        return {}
    data = data_of_page(storage.read_bytes(path).decode())
    if data is None or data["run"]["id"] != run_id:
        return {}
    return {row["ref_id"]: row["thumbnail"] for row in data["sample"] if row["thumbnail"]}


def _fetched_thumbnails(
    rows: Iterable[Mapping[str, Any]], manifest: Mapping[str, Any], base_dir: str | None
) -> dict[str, str]:
    """Reference → JPEG in base64, of the images that can be had; inline ones cannot."""
    import base64
    import os

    from beamlabel.transforms.decoding.decode import DecodeOptions
    from beamlabel.transforms.decoding.thumbnail import thumbnail
    from beamlabel.transforms.loading.fetch import FetchOptions
    from beamlabel.transforms.loading.load_images import LoadOptions, load_one
    from beamlabel.transforms.loading.web.http_options import PER_HOST, HttpOptions
    from beamlabel.transforms.records import ImageRef, LoadedImage
    from beamlabel.transforms.storage.billing import billing_project
    from beamlabel.transforms.storage.uris import resolve

    ran, made = manifest["options"], manifest["preprocessing"]
    load = LoadOptions(
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
        ),
        DecodeOptions(
            made["height"],
            made["width"],
            crop=made["crop"],
            max_pixels=ran["max_pixels"],
            color_profile=made.get("color_profile", "ignore"),  # schema version 1 knew no profiles
        ),
    )
    base = storage.absolute(base_dir or ran["base_dir"] or os.getcwd())  # noqa: PTH109 (a string is wanted)

    def fetched(row: Mapping[str, Any]) -> tuple[str, str | None]:
        image = load_one(ImageRef(row["uri"], row["ref_id"], resolve(row["uri"], base)), load)
        if isinstance(image, LoadedImage):
            return row["ref_id"], base64.b64encode(thumbnail(image.pixels)).decode()
        return row["ref_id"], None

    with ThreadPoolExecutor(_FETCH_THREADS, thread_name_prefix="thumbnails") as pool:
        return {ref_id: picture for ref_id, picture in pool.map(fetched, rows) if picture is not None}
