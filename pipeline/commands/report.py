"""``beamlabel report OUTPUT``: writes the page of a published run from its shards."""

from __future__ import annotations

from dataclasses import dataclass

from beamlabel.pipeline import layout
from beamlabel.pipeline.errors import UsageError
from beamlabel.pipeline.options.declare import flag, option, positional
from beamlabel.pipeline.options.fetch_rights import FetchRights
from beamlabel.pipeline.options.parser import parse_command
from beamlabel.pipeline.options.types import TEXT
from beamlabel.transforms import storage
from beamlabel.transforms.secrets.logs import get_logger
from beamlabel.transforms.storage.inside import below

_LOGGER = get_logger("beamlabel")


@dataclass(frozen=True, kw_only=True)
class ReportOptions(FetchRights):
    """The published output, and the images to fetch for its page."""

    output: str = positional(metavar="OUTPUT", help="the run's --output")
    fetch: bool = flag(help="fetch the images of sampled rows that have no thumbnail")
    base_dir: str | None = option(
        TEXT, metavar="DIR", help="with --fetch: base directory of relative references"
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
        description="Writes _report.html, a summary of the run with a sample of its rows, into a published output. It "
        "reads the shards, which hold no pixels. Thumbnails come from the existing page, if the run wrote one with "
        "--report, or are fetched again with --fetch.",
        epilog="Exit codes: 0 written, 2 wrong usage, 3 failed.",
    )
    return make_report(options.output, fetch=options.fetch, base_dir=options.base_dir, rights=options)


def make_report(
    output: str, *, fetch: bool = False, base_dir: str | None = None, rights: FetchRights | None = None
) -> int:
    """Writes the page; returns the exit code.

    Args:
      output: of the run.
      fetch, base_dir: see ``ReportOptions``.
      rights: the allowed sources of images; None: local files and buckets.

    Raises:
      UsageError: there is no published run.
    """
    # Arrow is slow to import, so --help does without it.
    from beamlabel.pipeline.output.manifest import parse_result
    from beamlabel.pipeline.places.outputs import check_directory
    from beamlabel.pipeline.report.before import night_before
    from beamlabel.pipeline.report.data import kept_thumbnails, report_data
    from beamlabel.pipeline.report.failed_pictures import add_failed_pictures
    from beamlabel.pipeline.report.page import page
    from beamlabel.pipeline.report.summaries import published_summaries
    from beamlabel.pipeline.report.thumbnails import fetched_thumbnails

    output = check_directory("OUTPUT", output)
    try:
        path = storage.join(output, layout.MANIFEST)
        manifest = parse_result(path, storage.read_bytes(path))
        for file in manifest["files"] if manifest is not None else ():
            below(output, file["name"])
    except FileNotFoundError as error:
        raise UsageError(f"OUTPUT {output!r}: no published run of beamlabel found there") from error
    except (OSError, ValueError) as error:
        raise UsageError(f"OUTPUT {output!r}: {error}") from error
    if manifest is None:
        raise UsageError(f"OUTPUT {output!r}: {layout.MANIFEST} was not written by beamlabel")
    path = storage.join(output, layout.REPORT)
    data = report_data(manifest, published_summaries(output, manifest))
    data["before"] = night_before(output, manifest, data)
    thumbnails = kept_thumbnails(path, run_id=manifest["run_id"])
    lacking = [row for row in data["sample"] if row["ref_id"] not in thumbnails]
    if fetch and lacking:
        thumbnails |= fetched_thumbnails(lacking, manifest, base_dir, rights or FetchRights())
    for row in data["sample"]:
        row["thumbnail"] = thumbnails.get(row["ref_id"])
    for example in (one for failure in data["failures"] for one in failure["examples"]):
        example["thumbnail"] = thumbnails.get(example["ref_id"])
    if fetch:
        add_failed_pictures(data, manifest, base_dir, rights or FetchRights())
    storage.write_bytes(path, page(data).encode())
    without = sum(row["thumbnail"] is None for row in data["sample"])
    _LOGGER.info(
        "%s: %d sampled rows, %d of them without a thumbnail%s",
        path, len(data["sample"]), without, "" if fetch or not without else "; --fetch fetches them",
    )  # fmt: skip
    return 0
