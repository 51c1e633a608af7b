"""The declared options as Markdown: the README's table, and ``docs/options.md``.

``python -m beamlabel.pipeline.options.reference --write`` updates both in the checkout.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable
from pathlib import Path

from beamlabel.pipeline.options.declare import Option, declared
from beamlabel.pipeline.options.job_options import GROUPS, job_options

_BEGIN = "<!-- options: made by python -m beamlabel.pipeline.options.reference --write -->"
_END = "<!-- end of options -->"
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


def readme(text: str) -> str:
    """The README with an up-to-date table of options.

    Raises:
      ValueError: the README lacks the two marks around the table.
    """
    before, begin, rest = text.partition(_BEGIN)
    _, end, after = rest.partition(_END)
    if not begin or not end:
        raise ValueError(f"README.md lacks {_BEGIN} or {_END}")
    return f"{before}{begin}\n{table(job_options())}\n{end}{after}"


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
    """Writes both with ``--write``; otherwise ends with 1 if one is not up to date."""
    root = Path(__file__).resolve().parents[2]
    wanted = {
        root / "README.md": readme((root / "README.md").read_text()),
        root / "docs" / "options.md": page(),
    }
    stale = [path for path, text in wanted.items() if not path.exists() or path.read_text() != text]
    if "--write" in sys.argv[1:]:
        for path in stale:
            path.write_text(wanted[path])
    elif stale:
        sys.exit(f"not up to date: {', '.join(path.name for path in stale)}; run with --write")


if __name__ == "__main__":
    main()
