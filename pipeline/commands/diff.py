"""``beamlabel diff A B``: compares two results, or two sets of nights."""

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
Compares two results image by image: images added and removed, changed labels, and failures that came and went. It also
measures the distance between the label distributions and between the mean embeddings. A and B are outputs, directories
of outputs, or globs. If a side has several outputs, the newest row or failure of each image counts, as in
`beamlabel compact`."""
_EPILOG = """\
Exit codes: 0 compared, 1 with --exit_code: there is a difference, 2 wrong usage or no result there, 3 failed."""


@dataclass(frozen=True, kw_only=True)
class DiffOptions(FetchRights):
    """The two sides, and the forms of the comparison."""

    a: str = positional(metavar="A", help="the earlier side")
    b: str = positional(metavar="B", help="the later side")
    json: bool = flag(help="print JSON instead of text")
    page: str | None = option(TEXT, metavar="FILE", help="also write an HTML page with thumbnails")
    fetch: bool = flag(help="with --page: fetch images that have no thumbnail in a report")
    base_dir: str | None = option(
        TEXT, metavar="DIR", help="with --fetch: base directory of relative references"
    )
    list: str | None = option(TEXT, metavar="FILE", help="also write a CSV of all changed images")
    examples: int = option(
        whole(0), default=24, metavar="N", help="images of each kind in JSON and page (default 24)"
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
    with tempfile.TemporaryDirectory(prefix="diff-") as directory:
        listed = Path(directory) / "list.csv" if options.list else None
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
