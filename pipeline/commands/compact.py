"""``beamlabel compact OUTPUT... --output DIR``: merges the current rows of many nights into one output."""

from __future__ import annotations

from dataclasses import dataclass

from beamlabel.pipeline.options.declare import choice, flag, option, positionals, required
from beamlabel.pipeline.options.parser import parse_command
from beamlabel.pipeline.options.types import whole
from beamlabel.pipeline.process.messages import tell

_DESCRIPTION = """\
Merges many outputs into one. The result holds the newest row of each image, except for images that were deleted since
(tombstones), are gone, or were replaced by one that failed. It also holds the newest failure of each image without a
row. The inputs are not changed. verify, evaluate, report, diff and --skip_labeled accept the result like that of a
run."""
_EPILOG = """\
Exit codes: 0 done, 2 wrong usage, no input, or the output exists, 3 failed (--if_exists resume continues), 75 a run has
locked the output, 130/143 cancelled."""


@dataclass(frozen=True, kw_only=True)
class CompactOptions:
    """The inputs and the output."""

    inputs: tuple[str, ...] = positionals(
        metavar="OUTPUT",
        help="outputs, directories of outputs, or globs of either, such as labels/ or 'labels/dt=*/'",
    )
    output: str = required(metavar="DIR", help="directory of the result; not below an input")
    shard_rows: int = option(whole(1), default=50_000, metavar="N", help="rows per shard (default 50000)")
    if_exists: str = choice(
        ("error", "overwrite", "resume"),
        default="error",
        help="what to do if the output exists (default error); resume: like overwrite, but keep the shards that a "
        "killed compaction of the same inputs has finished",
    )
    drop_others: bool = flag(
        help="leave out rows whose module, preprocessing or columns differ from the newest output's, and rows that do "
        "not identify their image; without it, such rows are an error"
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
