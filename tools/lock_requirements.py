#!/usr/bin/env python3
"""The pins of ``constraints.txt`` with the hashes of their files: writes ``requirements.lock``, and tells a part of it.

    tools/lock_requirements.py base,launcher,demo     what these need, for pip install --require-hashes --no-deps
    tools/lock_requirements.py build                  what builds the project
    tools/lock_requirements.py "build,base[aws,azure]"  the same with extras as pip has them
    tools/lock_requirements.py base,=tfx-bsl          and a package, whatever needs it
    tools/lock_requirements.py --write                makes requirements.lock anew; needs uv (pip install uv)

The lock has each version of ``constraints.txt`` once, with the SHA-256 of each of its files, for every Python and
platform, and names the extras that need it. A part of it is no more than its lines, so that no resolver runs, and
nothing is installed that has no hash. Of the standard library alone: it runs before anything is installed.
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
"""What is needed without any extra."""

BUILD = "build"
"""What builds the project: without it pip would fetch that, and check no hash."""

_HEAD = """\
# The versions of constraints.txt with the hashes of their files, and the extras that need each of them.
# Made by tools/lock_requirements.py --write; tools/setup_venv.sh installs the part that its extras need.
"""
_PIN = re.compile(r"([A-Za-z0-9._-]+)==")


class LockError(Exception):
    """The lock does not have what was asked for; the message says what to do."""


def part(lock: str, wanted: set[str]) -> str:
    """The lines of a lock that some extras need, or ``BASE``, or ``BUILD``.

    Args:
      lock: the text of the lock.
      wanted: their names, or with ``=`` before it a package's.

    Raises:
      LockError: a name that is in no line.
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
    """What uv resolves for every Python and platform, bound by ``constraints.txt``."""
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
    """Makes the lock anew.

    Raises:
      LockError: a version is not that of ``constraints.txt``.
    """
    project = ROOT / "pyproject.toml"
    text = project.read_text()
    (table,) = re.findall(r"^\[project\.optional-dependencies\]$(.*?)^\[", text, re.MULTILINE | re.DOTALL)
    extras = re.findall(r"^([a-z0-9_-]+) = \[$", table, re.MULTILINE)
    (requires,) = re.findall(r"^requires = \[(.*)\]$", text, re.MULTILINE)
    with tempfile.TemporaryDirectory() as folder:
        backend = Path(folder) / "backend.in"
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
            f"constraints.txt differs, make it anew as its head says: {', '.join(sorted(others))}"
        )
    with LOCK.open("w", encoding="utf-8") as lock:
        lock.write(_HEAD)
        for stanza, pin in zip(stanzas, pins, strict=True):
            match = _PIN.match(pin)
            of = [extra for extra, names in members.items() if match and match[1] in names]
            lock.write("".join(f"{line}\n" for line in stanza) + f"# of: {' '.join(of)}\n")


def main(words: list[str]) -> int:
    """Does what the words say; returns the exit code."""
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
