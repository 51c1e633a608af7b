"""Runs rows: a bucket, a checkout's code in a separate process, and the counts of the server."""

from __future__ import annotations

import argparse
import logging
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

from support.gcs_server import Bucket, GcsServer

ROOT = Path(__file__).resolve().parents[2]

Figures: TypeAlias = "dict[str, float]"
"""The figures of one row, by unit: ``{"requests": 12, "MB": 1.5}``."""


@dataclass(frozen=True)
class Row:
    """One measurement.

    Attributes:
      name: its name on the command line.
      what: its description in the table.
      measure: the function that measures it.
    """

    name: str
    what: str
    measure: Callable[[Bench], Figures]


ROWS: dict[str, Row] = {}


def row(what: str) -> Callable[[Callable[[Bench], Figures]], Callable[[Bench], Figures]]:
    """Makes a function a row of the table; the row's name is the function's, with dashes."""

    def add(measure: Callable[[Bench], Figures]) -> Callable[[Bench], Figures]:
        name = measure.__name__.replace("_", "-")
        ROWS[name] = Row(name, what, measure)
        return measure

    return add


class Bench:
    """The tools of a row.

    Attributes:
      bucket: new and empty; objects stored by ``bucket.put`` are neither counted nor delayed.
      checkout: the checkout whose code is measured.
      scratch: an empty directory.
      share: share of the row's usual size, for a quick look or for slow code.
      delay: seconds before each answer during a measurement.
    """

    def __init__(self, bucket: Bucket, checkout: Path, scratch: Path, share: float, delay: float) -> None:
        self.bucket, self.checkout, self.scratch = bucket, checkout, scratch
        self.share, self.delay = share, delay

    def sized(self, count: int) -> int:
        """Returns ``count`` scaled by the requested share, at least 1."""
        return max(round(count * self.share), 1)

    def python(self, code: str, *arguments: object) -> Figures:
        """Runs a program with the checkout's ``beamlabel``; measures its requests to the bucket and its time.

        Args:
          code: Python. ``sys.argv[1:]`` are the arguments. The part between ``begin()`` and ``end()`` is measured.
            ``tell(value, "unit")`` adds a figure.
          arguments: arguments of the program.

        Returns:
          ``requests``, ``MB`` (of the answers' and the requests' bodies) and ``seconds``.
        """
        program = f"{_FRAME}\n{code}"
        environment = {
            **os.environ,
            "PYTHONPATH": str(self.checkout),
            "STORAGE_EMULATOR_HOST": self.bucket.server.url,
            "BEAMLABEL_CACHE": str(self.scratch / "cache"),
        }
        child = subprocess.Popen(
            [sys.executable, "-c", program, *map(str, arguments)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment, cwd=self.scratch,
        )  # fmt: skip
        assert child.stdin is not None and child.stdout is not None
        told: Figures = {}
        self._await(child, "begin", told)
        requests, size = self.bucket.server.count(), self.bucket.server.body_bytes
        self.bucket.server.delay(self.delay)
        begin = time.monotonic()
        print("go", file=child.stdin, flush=True)
        self._await(child, "end", told)
        seconds = time.monotonic() - begin
        self.bucket.server.delay(0.0)
        requests, size = self.bucket.server.count() - requests, self.bucket.server.body_bytes - size
        print("go", file=child.stdin, flush=True)
        self._await(child, None, told)
        if child.wait():
            raise RuntimeError(f"the program failed with exit code {child.returncode}")
        return {"requests": requests, "MB": size / 1e6, "seconds": seconds, **told}

    @staticmethod
    def _await(child: subprocess.Popen[str], word: str | None, told: Figures) -> None:
        """Reads until the child prints the word, or to its end; keeps the figures that it prints before."""
        assert child.stdout is not None
        for line in child.stdout:
            mark, _, rest = line.strip().partition("bench: ")
            if mark or not rest:
                continue
            if rest == word:
                return
            _, value, unit = rest.split(" ", 2)
            told[unit] = float(value)
        if word is not None:
            raise RuntimeError(f"the program ended before {word!r}, with exit code {child.wait()}")


# Precedes each program.
_FRAME = """
import sys

def begin():
    print("bench: begin", flush=True)
    sys.stdin.readline()

def end():
    print("bench: end", flush=True)
    sys.stdin.readline()

def tell(value, unit):
    print("bench: figure", value, unit, flush=True)
"""


def _measured(one: Row, server: GcsServer, checkout: Path, share: float, delay: float) -> Figures:
    with tempfile.TemporaryDirectory() as scratch:
        bucket = Bucket(server, "bucket")
        return one.measure(Bench(bucket, checkout, Path(scratch), share, delay))


def shown(figures: Figures) -> str:
    """Formats figures: ``1,200 requests, 3.5 MB, 2.1 seconds``."""
    return ", ".join(
        f"{value:,.1f} {unit}" if isinstance(value, float) and value < 1000 else f"{value:,.0f} {unit}"
        for unit, value in figures.items()
    )


def main() -> None:
    """Runs the command."""
    parser = argparse.ArgumentParser(description="Counts requests to a bucket, before and after a change.")
    parser.add_argument("rows", nargs="*", metavar="ROW", help=", ".join(ROWS))
    parser.add_argument(
        "--before", type=Path, metavar="CHECKOUT", help="also measure the code of this checkout"
    )
    parser.add_argument("--delay", type=float, default=0.05, help="seconds before each answer (default 0.05)")
    parser.add_argument("--share", type=float, default=1.0, help="share of each row's usual size (default 1)")
    parser.add_argument(
        "--before_share", type=float, help="share for the other checkout (default: that of --share)"
    )
    options = parser.parse_args()
    if unknown := set(options.rows) - ROWS.keys():
        parser.error(f"no such row: {', '.join(sorted(unknown))}; there are {', '.join(ROWS)}")
    logging.getLogger("gcp_storage_emulator").setLevel(logging.CRITICAL)
    server = GcsServer()
    headings = ["what", *(["before"] if options.before else []), "after"]
    print(f"| {' | '.join(headings)} |\n| {' | '.join('---' for _ in headings)} |", flush=True)
    for one in [ROWS[name] for name in options.rows or ROWS]:
        cells = [one.what]
        if options.before:
            share = options.before_share or options.share
            cells.append(shown(_measured(one, server, options.before.resolve(), share, options.delay)))
        cells.append(shown(_measured(one, server, ROOT, options.share, options.delay)))
        print(f"| {' | '.join(cells)} |", flush=True)
    server.close()
