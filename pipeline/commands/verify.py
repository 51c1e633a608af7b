"""``beamlabel verify OUTPUT``: whether a result is whole, and is what its manifest says."""

from __future__ import annotations

import sys
from dataclasses import dataclass

from beamlabel.pipeline.options.declare import flag, positional
from beamlabel.pipeline.options.parser import parse_command


@dataclass(frozen=True, kw_only=True)
class VerifyOptions:
    """The result, and how thoroughly it is checked."""

    output: str = positional(metavar="OUTPUT", help="a run's --output")
    quick: bool = flag(help="hash nothing, and read of data only the footers of Parquet files")


def main(argv: list[str]) -> int:
    """Runs the command; returns its exit code.

    Raises:
      UsageError: a wrong argument, or no result at the output.
    """
    options = parse_command(
        VerifyOptions,
        argv,
        command="verify",
        description="Checks a result against its _MANIFEST.json: that each file is there, with its bytes, SHA-256, "
        "rows, columns and metadata, and can be read; that failures recount by reason; that input = predicted + "
        "failed + skipped; that _SUCCESS is there if it should be, and no file that the manifest does not name.",
        epilog="Each problem is a line on stdout. Exit codes: 0 good, 1 not good, 2 wrong usage or no result there, "
        "3 it broke.",
    )
    from beamlabel.pipeline.output.verify import verify
    from beamlabel.pipeline.process.exit import DONE

    found = verify(options.output, quick=options.quick)
    sys.stdout.writelines(f"{problem}\n" for problem in found.problems)
    if found.problems:
        sys.stderr.write(f"beamlabel verify: {options.output} is not good: {len(found.problems)} problems\n")
        return 1
    sys.stderr.write(
        f"beamlabel verify: {options.output} is good: {found.files} files, {found.predicted} rows predicted, "
        f"{found.failed} failed, {found.bytes_read / 1e6:.1f} MB read\n"
    )
    return DONE
