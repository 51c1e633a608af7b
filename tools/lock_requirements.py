#!/usr/bin/env python3
"""Writes ``requirements.lock``, the pins of ``constraints.txt`` with the hashes of their files, and prints parts of it.

    tools/lock_requirements.py base,launcher,demo     their requirements, for pip install --require-hashes --no-deps
    tools/lock_requirements.py build                  the requirements of the build
    tools/lock_requirements.py "build,base[aws,azure]"  the same, with extras in pip's notation
    tools/lock_requirements.py base,=tfx-bsl          a package too, whichever extra needs it
    tools/lock_requirements.py --write                writes requirements.lock again; needs uv (pip install uv)

The lock has each version of ``constraints.txt`` once, with the SHA-256 of each of its files, for every Python and
platform, and names the extras that need it. A part of it consists of its lines, so no resolver runs and nothing without
a hash is installed. The script uses only the standard library because it runs before anything is installed.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
LOCK = ROOT / "requirements.lock"
CONSTRAINTS = ROOT / "constraints.txt"

BASE = "base"
"""The requirements without any extra."""

BUILD = "build"
"""The requirements of the build: without them pip would fetch its own and check no hash."""

_HEAD = """\
# The versions of constraints.txt with the hashes of their files, and the extras that need each of them.
# Made by tools/lock_requirements.py --write; tools/setup_venv.sh installs the part that its extras need.
"""
_PIN = re.compile(r"([A-Za-z0-9._-]+)==")


class LockError(Exception):
    """The lock lacks a name or differs from ``constraints.txt``; the message names the remedy."""


def part(lock: str, wanted: set[str]) -> str:
    """Returns the lines of a lock that extras, ``BASE`` or ``BUILD`` need.

    Args:
      lock: the text of the lock.
      wanted: names of extras, ``BASE``, ``BUILD``, or ``=`` followed by the name of a package.

    Raises:
      LockError: no line has one of the names.
    """
    known, found, lines = set[str](), list[str](), list[str]()
    for line in lock.splitlines(keepends=True):
        if line.startswith("# of: "):
            of = set(line.removeprefix("# of: ").split())
            of |= {f"={match[1]}" for one in lines if (match := _PIN.match(one))}
            known |= of
            if of & wanted:
                found += lines
            lines = []
        elif not line.startswith("#"):
            lines.append(line)
    if unknown := wanted - known:
        raise LockError(
            f"requirements.lock has no {', '.join(sorted(unknown))}; there are "
            f"{', '.join(sorted(one for one in known if not one.startswith('=')))}"
        )
    return "".join(found)


def _compiled(files: list[Path], *words: str) -> str:
    """Resolves with uv for every Python and platform, within ``constraints.txt``."""
    done = subprocess.run(
        ["uv", "pip", "compile", "--quiet", "--universal", "--python-version", "3.10", "--no-python-downloads",
         "--no-annotate", "--no-header", "--no-emit-index-url", "--no-emit-find-links",
         "--constraint", str(CONSTRAINTS), *words, *map(str, files)],
        stdout=subprocess.PIPE, text=True, check=True,
    )  # fmt: skip
    return done.stdout


def _names(compiled: str) -> set[str]:
    return {match[1] for line in compiled.splitlines() if (match := _PIN.match(line))}


def write() -> None:
    """Writes the lock again.

    Raises:
      LockError: a version differs from ``constraints.txt``.
    """
    project = ROOT / "pyproject.toml"
    text = project.read_text()
    (table,) = re.findall(r"^\[project\.optional-dependencies\]$(.*?)^\[", text, re.MULTILINE | re.DOTALL)
    extras = re.findall(r"^([a-z0-9_-]+) = \[$", table, re.MULTILINE)
    (requires,) = re.findall(r"^requires = \[(.*)\]$", text, re.MULTILINE)
    with tempfile.TemporaryDirectory() as directory:
        backend = Path(directory) / "backend.in"
        backend.write_text("".join(f"{one}\n" for one in re.findall(r'"([^"]+)"', requires)))
        members = {BUILD: _names(_compiled([backend])), BASE: _names(_compiled([project]))}
        members |= {extra: _names(_compiled([project], "--extra", extra)) for extra in extras}
        compiled = _compiled([project, backend], "--all-extras", "--generate-hashes")
    lines: list[str] = []
    stanzas: list[list[str]] = []
    for line in compiled.splitlines():
        if _PIN.match(line):
            lines = []
            stanzas.append(lines)
        lines.append(line)
    pins = [stanza[0].removesuffix("\\").strip() for stanza in stanzas]
    tested = {line.strip() for line in CONSTRAINTS.read_text().splitlines() if _PIN.match(line)}
    if others := set(pins) ^ tested:
        raise LockError(
            f"constraints.txt differs; make it again with the command in its first lines: {', '.join(sorted(others))}"
        )
    with LOCK.open("w", encoding="utf-8") as lock:
        lock.write(_HEAD)
        for stanza, pin in zip(stanzas, pins, strict=True):
            match = _PIN.match(pin)
            of = [extra for extra, names in members.items() if match and match[1] in names]
            lock.write("".join(f"{line}\n" for line in stanza) + f"# of: {' '.join(of)}\n")


def main(words: list[str]) -> int:
    """Runs the command of these arguments; returns the exit code."""
    if len(words) != 1:
        sys.stderr.write(f"{__doc__}\n")
        return 2
    try:
        if words[0] == "--write":
            write()
        else:
            sys.stdout.write(
                part(LOCK.read_text(encoding="utf-8"), set(filter(None, re.split(r"[,\[\]\s]+", words[0]))))
            )
    except (LockError, FileNotFoundError) as error:
        sys.stderr.write(f"lock_requirements.py: {error}\n")
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
