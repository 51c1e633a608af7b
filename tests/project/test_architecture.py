"""The map in ``docs/architecture.md`` has every directory, and names in pages and comments exist."""

import importlib
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from support.paths import ROOT

PAGE = (ROOT / "docs" / "architecture.md").read_text()
DIRECTORIES = ("pipeline", "transforms", "tests", "tools", "docs", "deploy", "benchmarks")
# A path from the repository's root to a file with the suffix of a text.
PATH = re.compile(
    rf"(?<![\w/.$}}-])(?:\.\./)*((?:{'|'.join(DIRECTORIES)}|beamlabel)/[\w/.@-]*"
    r"\.(?:py|sh|md|txt|toml|ya?ml|json|xml|js|css|html|cron|service|timer))\b"
)
MODULE = re.compile(r"\bbeamlabel\.(?:pipeline|transforms)(?:\.\w+)+")


@cache
def texts() -> dict[Path, str]:
    """All texts of the repository except the change log, which may name removed things."""
    files = [path for directory in DIRECTORIES for path in (ROOT / directory).rglob("*")]
    files += [
        path for pattern in ("*.*", ".*.yaml", ".ci/*", "beamlabel/*.py") for path in ROOT.glob(pattern)
    ]
    written = {
        "",
        ".py",
        ".sh",
        ".md",
        ".toml",
        ".yaml",
        ".txt",
        ".xml",
        ".js",
        ".css",
        ".html",
        ".in",
        ".cron",
    }
    written |= {".dockerignore", ".Dockerfile", ".launcher", ".service", ".timer"}
    return {
        path: path.read_text()
        for path in files
        if path.is_file() and path.suffix in written and path.name != "CHANGELOG.md"
    }


def found(pattern: re.Pattern[str], *, only: str = "") -> Iterator[tuple[str, str]]:
    """The matches of a pattern in the texts with these suffixes: file and line, and the found text."""
    for path, text in texts().items():
        if path.name.endswith(only):
            for number, line in enumerate(text.splitlines(), 1):
                for match in pattern.finditer(line):
                    yield f"{path.relative_to(ROOT)}:{number}", match[match.lastindex or 0]


def test_every_directory_is_on_the_map_and_no_other():
    rows = dict(re.findall(r"^\| `(\S+)/` \| (.*) \|$", PAGE, re.MULTILINE))
    ours = {name for name in rows if name.partition("/")[0] in ("pipeline", "transforms")}
    there = {
        str(path.parent.relative_to(ROOT))
        for package in ("pipeline", "transforms")
        for path in (ROOT / package).rglob("*.py")
    }
    assert ours == there
    assert all((ROOT / name).is_dir() for name in rows)
    assert all(sentence.endswith(".") for sentence in rows.values())


def test_the_picture_is_of_the_jobs_steps():
    picture = re.findall(r"```mermaid\n(.*?)```", PAGE, re.DOTALL)[0]
    sources = (ROOT / "pipeline" / "job" / "graph.py", ROOT / "transforms" / "label_images.py")
    graph = "".join(path.read_text() for path in sources)
    # The steps of the graph begin with capitals, the launcher's actions do not.
    steps = re.findall(r'\["([A-Z]\w+)[^"]*<br/>(?:transforms|pipeline)/', picture)
    assert len(steps) == 6
    assert [step for step in steps if f'"{step}" >>' not in graph] == []
    directories = re.findall(r"(?:pipeline|transforms)/\w+", picture)
    assert directories
    assert all((ROOT / directory).is_dir() for directory in directories)


def test_every_path_that_is_named_is_there():
    named = list(found(PATH))
    assert len(named) > 50
    assert [(where, path) for where, path in named if not (ROOT / path).is_file()] == []


def test_every_file_that_a_page_names_is_there():
    names = {path.name for path in texts()}
    named = list(found(re.compile(r"`(\w+\.(?:py|sh))`"), only=".md"))
    assert len(named) > 10
    assert [(where, name) for where, name in named if name not in names] == []


def test_every_link_leads_somewhere():
    pages = [*ROOT.glob("*.md"), *(path for path in texts() if path.suffix == ".md")]
    links = [
        (page, link)
        for page in pages
        for link in re.findall(r"\]\(([^)\s#]+)[^)\s]*\)", page.read_text())
        if "://" not in link
    ]
    assert len(links) > 20
    assert [(str(page), link) for page, link in links if not (page.parent / link).exists()] == []


def test_every_module_that_is_named_is_there():
    named = list(found(MODULE))
    assert len(named) > 50
    assert [(where, name) for where, name in named if not is_there(name)] == []


@cache
def is_there(name: str) -> bool:
    """Whether the name is a directory, a module, or a word or an attribute of one."""
    directory, *parts = ROOT, *name.split(".")
    while parts and (directory / parts[0]).is_dir():
        directory /= parts.pop(0)
    if not parts:
        return True
    file = directory / f"{parts[0]}.py"
    if file.is_file():
        parts.pop(0)
    else:
        file = directory / "__init__.py"
    if not parts or re.search(rf"\b{parts[0]}\b", file.read_text()):
        return True
    module = ".".join(file.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
    return hasattr(importlib.import_module(module), parts[0])
