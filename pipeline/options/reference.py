"""The declared options as Markdown: ``docs/options.md``.

``python -m beamlabel.pipeline.options.reference --write`` updates the page in the checkout.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable
from pathlib import Path

from beamlabel.pipeline.options.declare import Option, declared
from beamlabel.pipeline.options.job_options import GROUPS

_PAGE = """\
# Options

The options of `beamlabel --input PATTERN --module HANDLE --output DIR [option ...]`. Options that are not listed go to
the Beam runner, such as `--runner FlinkRunner`. `python -m beamlabel.pipeline.options.reference --write` generates this
page from the declarations in `pipeline/options/job_options.py`.
"""


def table(options: Iterable[Option]) -> str:
    """A Markdown table with one row per option."""
    rows = ["| option | |", "| --- | --- |"]
    for one in options:
        needed = "**required**: " if one.is_required else ""
        rows.append(f"| {_spelled(one)} | {needed}{one.help} |")
    return "\n".join(rows)


def page() -> str:
    """``docs/options.md``: a table for each group."""
    parts = [_PAGE]
    for title, _, options in GROUPS:
        about = (options.__doc__ or "").partition("\n")[0]
        parts.append(f"\n## {title[0].upper()}{title[1:]}\n\n{about}\n\n{table(declared(options))}\n")
    return "".join(parts)


def _spelled(one: Option) -> str:
    value = "\\|".join(one.choices) if one.choices else one.metavar
    return f"`--{one.name} {value}`".replace(" `", "`")


def main() -> None:
    """Writes the page with ``--write``; otherwise ends with 1 if it is not up to date."""
    path = Path(__file__).resolve().parents[2] / "docs" / "options.md"
    if path.exists() and path.read_text() == page():
        return
    if "--write" not in sys.argv[1:]:
        sys.exit(f"{path.name} is not up to date; run with --write")
    path.write_text(page())


if __name__ == "__main__":
    main()
