"""``CHANGELOG.md`` has its format and the current version; names in ``CONTRIBUTING.md`` exist."""

import re
import shlex

from beamlabel import __version__
from support.paths import ROOT

LOG = (ROOT / "CHANGELOG.md").read_text()
GUIDE = (ROOT / "CONTRIBUTING.md").read_text()
KINDS = {"Added", "Changed", "Deprecated", "Removed", "Fixed", "Security"}


def test_the_newest_release_is_the_version_that_is_here():
    first, *releases = re.findall(r"^## (.*)$", LOG, re.MULTILINE)
    assert first == "[Unreleased]"
    versions = [re.fullmatch(r"\[(\d+\.\d+\.\d+)\] - (\d{4}-\d\d-\d\d)", release) for release in releases]
    assert all(versions)
    assert versions[0][1] == __version__
    dates = [version[2] for version in versions]
    assert dates == sorted(dates, reverse=True)


def test_changes_are_of_the_kinds_that_there_are():
    kinds = re.findall(r"^### (.*)$", LOG, re.MULTILINE)
    assert kinds
    assert set(kinds) <= KINDS


def test_the_guide_runs_programs_that_there_are():
    blocks = re.findall(r"^ *```bash\n(.*?)```", GUIDE, re.MULTILINE | re.DOTALL)
    lines = [shlex.split(line, comments=True) for block in blocks for line in block.splitlines()]
    for program, *words in filter(None, lines):
        if program.startswith(("./", "tools/")):
            assert (ROOT / program).exists(), program
        for word in words:
            if word.startswith("tests/"):
                assert (ROOT / word).exists(), word
