"""``beamlabel compact INPUT... --output DIR``: the current rows of many nights, as one output."""

from __future__ import annotations

from dataclasses import dataclass

from beamlabel.pipeline.options.declare import choice, flag, option, positionals, required
from beamlabel.pipeline.options.parser import parse_command
from beamlabel.pipeline.options.types import whole
from beamlabel.pipeline.process.messages import tell

_DESCRIPTION = """\
Writes the current table of many outputs as one: of each image the newest row, without the images that were deleted
since (tombstones), are gone, or were replaced by one that failed; and of images without a row their newest failure.
The inputs stay as they are. What is written is a result like a run's: verify, evaluate, report, diff and
--skip_labeled take it."""
_EPILOG = """\
Exit codes: 0 done, 2 wrong usage, nothing there, or the output exists, 3 it broke (--if_exists resume goes on), 75 a
run is at work on the output, 130/143 cancelled."""


@dataclass(frozen=True, kw_only=True)
class CompactOptions:
    """Which outputs become which one."""

    inputs: tuple[str, ...] = positionals(
        metavar="INPUT",
        help="outputs, folders of outputs, or globs of either, such as labels/ or 'labels/dt=*/'",
    )
    output: str = required(metavar="DIR", help="where to; not below an input")
    shard_rows: int = option(whole(1), default=50_000, metavar="N", help="rows of a shard (default 50000)")
    if_exists: str = choice(
        ("error", "overwrite", "resume"),
        default="error",
        help="what to do when the output exists (default error); resume: as overwrite, but the shards that a killed "
        "compaction of the same inputs has finished are kept",
    )
    drop_others: bool = flag(
        help="leave out rows that are not of the newest output's module, preprocessing and columns, or that do not "
        "tell which image they are of; without it, such rows are a mistake"
    )


def main(argv: list[str]) -> int:
    """Runs the command; returns its exit code.

    Raises:
      UsageError: a wrong argument, or see ``compact``.
    """
    options = parse_command(CompactOptions, argv, command="compact", description=_DESCRIPTION, epilog=_EPILOG)
    from beamlabel.pipeline.compact.compact import compact
    from beamlabel.pipeline.output.lock import OutputLockedError
    from beamlabel.pipeline.process.exit import DONE, NOT_YET

    try:
        manifest = compact(
            options.inputs,
            options.output,
            shard_rows=options.shard_rows,
            if_exists=options.if_exists,
            drop_others=options.drop_others,
        )
    except OutputLockedError as error:
        tell(str(error), "beamlabel compact")
        return NOT_YET
    compacted = manifest["compacted"]
    for what in ("rows", "failures"):
        fates = {
            fate.replace("_", " "): count
            for fate, count in compacted[what].items()
            if count or fate == "kept"
        }
        parts = " + ".join(f"{count} {fate}" for fate, count in fates.items())
        tell(f"{compacted[f'{what}_read']} {what} read = {parts}", "beamlabel compact")
    tell(
        f"{len(compacted['outputs'])} outputs became {manifest['output']}: "
        f"{manifest['rows']['predicted']} images with a row, {manifest['rows']['failed']} failed",
        "beamlabel compact",
    )
    return DONE
