"""``beamlabel verify OUTPUT``: checks that a result is complete and agrees with its manifest."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from beamlabel.pipeline.options.declare import flag, positional
from beamlabel.pipeline.options.parser import parse_command
from beamlabel.pipeline.process.messages import answer, tell
from beamlabel.transforms.secrets.printable import escaped

if TYPE_CHECKING:
    from beamlabel.pipeline.output.verify import Verified


@dataclass(frozen=True, kw_only=True)
class VerifyOptions:
    """The result and the thoroughness of the check."""

    output: str = positional(metavar="OUTPUT", help="a run's --output")
    quick: bool = flag(help="hash nothing, and read only the footers of Parquet files")


def main(argv: list[str]) -> int:
    """Runs the command; returns its exit code.

    Raises:
      UsageError: a wrong argument, or no result at the output.
    """
    options = parse_command(
        VerifyOptions,
        argv,
        command="verify",
        description="Checks a result against its _MANIFEST.json: each file exists, can be read, and has its bytes, "
        "SHA-256, rows, columns and metadata; the failures by reason add up; input = predicted + failed + skipped; "
        "_SUCCESS exists if it should; there is no file that the manifest does not name.",
        epilog="Each problem is a line on stdout. Exit codes: 0 consistent, 1 not consistent, 2 wrong usage or no "
        "result there, 3 failed.",
    )
    from beamlabel.pipeline.output.verify import verify
    from beamlabel.pipeline.process.exit import DONE

    found = verify(options.output, quick=options.quick)
    answer("".join(f"{escaped(problem)}\n" for problem in found.problems))
    if found.problems:
        tell(f"{options.output} is not consistent: {len(found.problems)} problems", "beamlabel verify")
        return 1
    tell(f"{options.output} is {_verdict(found)}", "beamlabel verify")
    return DONE


def _verdict(found: Verified) -> str:
    read = f"{found.files} files, {found.bytes_read / 1e6:.1f} MB read"
    if not found.predicted:
        return (
            f"consistent, but nothing was predicted: {found.failed} failed, {found.skipped} skipped; {read}"
        )
    return f"consistent: {found.predicted} images predicted, {found.failed} failed, {found.skipped} skipped; {read}"
