"""``beamlabel diff A B``: what differs between two results, or between two sets of nights."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path

from beamlabel.pipeline.errors import UsageError
from beamlabel.pipeline.options.declare import flag, option, positional
from beamlabel.pipeline.options.fetch_rights import FetchRights
from beamlabel.pipeline.options.parser import parse_command
from beamlabel.pipeline.options.types import TEXT, whole
from beamlabel.pipeline.process.messages import answer, answer_json

_DESCRIPTION = """\
Compares two results image by image: those added and removed, those with another label, failures that came and went;
and how far the distributions of labels and the mean embeddings are from each other. A and B are outputs, folders of
outputs, or globs; of several outputs the newest row or failure of each image counts, as in `beamlabel compact`."""
_EPILOG = """\
Exit codes: 0 compared, 1 with --exit_code: there is a difference, 2 wrong usage or no result there, 3 it broke."""


@dataclass(frozen=True, kw_only=True)
class DiffOptions(FetchRights):
    """What is compared, and in which forms the differences are told."""

    a: str = positional(metavar="A", help="the earlier side")
    b: str = positional(metavar="B", help="the later side")
    json: bool = flag(help="JSON for machines, not text")
    page: str | None = option(TEXT, metavar="FILE", help="write a page of HTML too, with thumbnails")
    fetch: bool = flag(help="with --page: fetch the images that no report has a thumbnail of")
    base_dir: str | None = option(
        TEXT, metavar="DIR", help="with --fetch: what relative references are relative to"
    )
    list: str | None = option(TEXT, metavar="FILE", help="write a CSV of all changed images too")
    examples: int = option(
        whole(0), default=24, metavar="N", help="images of each kind that JSON and page show (default 24)"
    )
    exit_code: bool = flag(help="exit with 1 if an image, a label or a failure differs")


def main(argv: list[str]) -> int:
    """Runs the command; returns its exit code.

    Raises:
      UsageError: a wrong argument, or no result to compare.
    """
    options = parse_command(DiffOptions, argv, command="diff", description=_DESCRIPTION, epilog=_EPILOG)
    if (options.fetch or options.base_dir) and not options.page:
        raise UsageError("--fetch and --base_dir are for the thumbnails of --page FILE")
    from beamlabel.pipeline.diff.compare import compare
    from beamlabel.pipeline.diff.text import as_text
    from beamlabel.pipeline.places.cache import check_scratch
    from beamlabel.pipeline.places.outputs import check_file
    from beamlabel.transforms import storage
    from beamlabel.transforms.storage.errors import is_user_error

    for name, file in (("--page", options.page), ("--list", options.list)):
        if file is not None:
            check_file(name, file)
    check_scratch()
    with tempfile.TemporaryDirectory(prefix="diff-") as folder:
        listed = Path(folder) / "list.csv" if options.list else None
        found = compare(options.a, options.b, examples=options.examples, listed=listed)
        try:
            if listed is not None and options.list:
                storage.write_file(storage.absolute(options.list), listed)
            if options.page:
                from beamlabel.pipeline.diff.page import diff_page

                text = diff_page(found, fetch=options.fetch, base_dir=options.base_dir, rights=options)
                storage.write_bytes(storage.absolute(options.page), text.encode())
        except OSError as error:
            if not is_user_error(error):
                raise
            raise UsageError(f"{options.page or options.list} cannot be written: {error}") from error
    if options.json:
        answer_json(found)
    else:
        answer(as_text(found))
    return 1 if options.exit_code and _differs(found) else 0


def _differs(found: dict) -> bool:
    images, failures = found["images"], found["failures"]
    return any(
        [
            *(images[kind] for kind in ("added", "removed", "replaced")),
            found["labels"]["relabeled"],
            *(failures[kind] for kind in ("came", "went", "other_reason")),
        ]
    )
