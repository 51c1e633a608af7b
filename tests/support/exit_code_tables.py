"""Exit codes in the tables of pages, and those of the programs."""

import re

from beamlabel.pipeline.process import exit as exit_codes

# The last three are SIGHUP, SIGINT and SIGTERM.
OF_JOBS = {
    exit_codes.DONE,
    exit_codes.TOO_MANY_FAILURES,
    exit_codes.USAGE,
    exit_codes.BROKEN,
    exit_codes.OUT_OF_TIME,
    exit_codes.NOT_YET,
    129,
    130,
    143,
}


def in_tables(text: str) -> set[int]:
    """The exit codes in the first column of a page's tables."""
    return {
        int(code) for row in re.findall(r"^\| ([\d, ]+) \|", text, re.MULTILINE) for code in row.split(",")
    }
