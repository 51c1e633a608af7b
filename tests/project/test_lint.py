"""Linting: the same checks before a commit as in ``run_tests.sh``, and every shell script."""

import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from support.paths import ROOT

TOOLS = Path(sys.executable).parent
CONFIG = ROOT / ".pre-commit-config.yaml"


def linters_of_run_tests() -> list[str]:
    """The lines of ``run_tests.sh`` that run a tool of ``.venv`` other than tests."""
    lines = (ROOT / "run_tests.sh").read_text().splitlines()
    return [line for line in lines if line.startswith(".venv/bin/") and "pytest" not in line]


def test_a_commit_is_linted_as_run_tests_lints():
    (repository,) = yaml.safe_load(CONFIG.read_text())["repos"]
    assert repository["repo"] == "local"
    hooks = repository["hooks"]
    assert [hook["entry"] for hook in hooks] == linters_of_run_tests()
    assert len(hooks) == 5
    for hook in hooks:
        # The whole project with the versions that the tests use, for every commit.
        assert (hook["language"], hook["pass_filenames"], hook["always_run"]) == ("system", False, True)


def test_pre_commit_takes_the_configuration(tmp_path):
    wrong = tmp_path / "config.yaml"
    wrong.write_text(CONFIG.read_text().replace("entry:", "entries:"))
    codes = [
        subprocess.run([TOOLS / "pre-commit", "validate-config", path], capture_output=True).returncode
        for path in (CONFIG, wrong)
    ]
    assert codes == [0, 1]


def test_every_script_is_clean():
    scripts = [*ROOT.glob("*.sh"), ROOT / ".ci" / "run"]
    scripts += [path for directory in ("tools", "deploy") for path in (ROOT / directory).rglob("*.sh")]
    assert {"run_tests.sh", "submit.sh", "label.sh", "setup_venv.sh"} <= {path.name for path in scripts}
    done = subprocess.run([TOOLS / "shellcheck", *scripts], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


@pytest.mark.long
def test_a_broken_link_and_a_misspelled_word_are_found(tmp_path):
    page = tmp_path / "page.md"
    for text, clean in (
        ("# A title\n\n[there](#a-title)\n", True),
        ("# A title\n\n[gone](#another)\n", False),
        ("[gone](gone.md)\n", False),
    ):
        page.write_text(text)
        done = subprocess.run([TOOLS / "deadlinkfinder", "--quiet", page], capture_output=True)
        assert (done.returncode == 0) is clean
    for text, clean in (("received", True), ("rec" + "ieved", False)):
        page.write_text(text)
        done = subprocess.run([TOOLS / "codespell", page], capture_output=True, cwd=ROOT)
        assert (done.returncode == 0) is clean
