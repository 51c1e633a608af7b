"""A test runs every example of the README and ``docs/``, or this file gives the reason why not."""

import re
from collections import Counter

import pytest

from support.paths import ROOT

BLOCK = re.compile(r"^```(bash|sh|python|sql|yaml|java|console)\n(.*?)^```$", re.DOTALL | re.MULTILINE)

# The tests that run all blocks of a page, except those below.
RUN_BY = {
    "README.md": "tests/project/test_readme.py",
    "docs/commands.md": "tests/project/test_docs_commands.py",
    "docs/dataflow.md": "tests/project/test_dataflow_deploy.py",
    "docs/flink.md": "tests/project/test_flink_docs.py",
    "docs/inputs.md": "tests/project/test_inputs_docs.py",
    "docs/nightly.md": "tests/project/test_nightly_docs.py",
    "docs/output.md": "tests/project/test_output_docs.py",
    "docs/own_classes.md": "tests/project/test_own_classes_docs.py",
    "docs/pipelines.md": "tests/project/test_pipelines_docs.py",
    "docs/quickstart.md": "tests/project/test_quickstart_docs.py",
}

# Page and start of a block → the reason why the block is not run unchanged.
NOT_RUN = {
    (
        "README.md",
        "pip install --constraint",
    ): "downloads 3 GB; test_package.py installs the wheel and runs it",
    (
        "docs/runners.md",
        "pip install --constraint",
    ): "downloads; test_lean_worker.py runs workers without TensorFlow",
    (
        "docs/security.md",
        "python3 tools/lock_requirements.py",
    ): "downloads; tools/setup_venv.sh runs these steps",
    (
        "docs/output.md",
        "bq load",
    ): "no BigQuery here; test_nightly_docs.py checks the options of bq against the files",
    ("docs/dataflow.md", "beamlabel --input"): "no Dataflow here; test_dataflow_deploy.py parses the options",
    (
        "docs/dataflow.md",
        "export PROJECT",
    ): "no Dataflow here; test_dataflow_deploy.py runs submit.sh with stand-ins",
    (
        "docs/dataflow.md",
        "BUILD_ARGS=",
    ): "no Docker here; test_dataflow_deploy.py runs submit.sh with stand-ins",
    (
        "docs/nightly.md",
        "CREATE TEMPORARY VIEW",
    ): "no Spark here; test_nightly_docs.py runs its query in DuckDB",
    (
        "docs/nightly.md",
        "CREATE VIEW photos.current_labels",
    ): "no BigQuery; test_nightly_docs.py runs it in DuckDB",
    (
        "docs/pipelines.md",
        "python -m beamlabel.pipeline.runners.expansion_service",
    ): "by test_cross_language.py",
    (
        "docs/pipelines.md",
        "tools/setup_java.sh",
    ): "tests/transforms/test_cross_language.py runs the program on Prism",
    ("docs/pipelines.md", "/** LabelImages"): "test_cross_language.py runs the program that it is a part of",
}


def blocks() -> list[tuple[str, str]]:
    """Each block with its page."""
    pages = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
    return [
        (str(page.relative_to(ROOT)), block.strip())
        for page in pages
        for _, block in BLOCK.findall(page.read_text())
    ]


def reason(page: str, block: str) -> str | None:
    return next(
        (why for (name, start), why in NOT_RUN.items() if name == page and block.startswith(start)), None
    )


def test_every_block_is_run_or_has_a_reason():
    assert [(page, block) for page, block in blocks() if page not in RUN_BY and not reason(page, block)] == []


def test_no_reason_is_left_over():
    used = Counter(
        (name, start)
        for page, block in blocks()
        for name, start in NOT_RUN
        if name == page and block.startswith(start)
    )
    assert set(used) == set(NOT_RUN)


@pytest.mark.parametrize("page", RUN_BY)
def test_the_tests_read_the_page(page):
    name = page.rpartition("/")[2]
    assert f'"{name}"' in (ROOT / RUN_BY[page]).read_text()
    assert page in {found for found, _ in blocks()}
