"""Known vulnerabilities: an empty database does not pass for a clean result."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from support.paths import ROOT

# A pip-audit whose database the test sets; it records its arguments.
_PIP_AUDIT = """\
#!/bin/sh
echo "$*" >> "$LOG"
case "$*" in
  *known.txt*)
    [ "$KNOWS" = nothing ] && echo '{"dependencies": [{"name": "pillow", "vulns": []}]}'
    [ "$KNOWS" = much ] && echo '{"dependencies": [{"name": "pillow", "vulns": [{"id": "CVE-2022-22817"}]}]}'
    [ "$KNOWS" = gone ] && echo 'ERROR: no route to host' >&2
    exit 1 ;;
  *) exit "$FOUND" ;;
esac
"""


@pytest.mark.parametrize(
    ("knows", "found", "code", "said"),
    [
        ("much", 0, 0, ""),
        ("much", 1, 1, ""),
        ("nothing", 0, 3, "NOT AUDITED: the database that answers has no vulnerabilities in it"),
        ("gone", 0, 3, "NOT AUDITED: no database of vulnerabilities answers: ERROR: no route to host"),
    ],
)
def test_known_facts_decide(tmp_path: Path, knows: str, found: int, code: int, said: str) -> None:
    program = tmp_path / "pip-audit"
    program.write_text(_PIP_AUDIT)
    program.chmod(0o755)
    env = {**os.environ, "PIP_AUDIT": str(program), "LOG": str(tmp_path / "log")}
    done = subprocess.run(
        [ROOT / "tools" / "audit.sh", "-s", "osv"], capture_output=True, text=True, check=False,
        env={**env, "KNOWS": knows, "FOUND": str(found)},
    )  # fmt: skip
    assert done.returncode == code, done.stderr
    assert said in done.stderr
    asked = (tmp_path / "log").read_text().splitlines()
    assert len(asked) == (2 if knows == "much" else 1)
    assert all("-s osv" in words for words in asked)
    assert knows != "much" or "--requirement requirements.lock --require-hashes" in asked[1]
