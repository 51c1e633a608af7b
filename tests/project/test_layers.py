"""The order of the folders: what stands above imports what stands below, and never the other way round.

Read from the sources, imports inside functions and for type checkers included.
"""

import ast
import graphlib
from collections import defaultdict
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

from support.paths import ROOT

# From the bottom. A folder imports from levels below its own, also if they are of its own folders; a name that ends
# in .py is a file at a package's root.
LEVELS = (
    ("beamlabel/__init__.py",),
    ("transforms/arguments.py", "transforms/records.py", "transforms/storage", "transforms/worker"),
    ("transforms/decoding/picture", "transforms/inference", "transforms/rows"),
    ("transforms/decoding/readers",),
    ("transforms/decoding",),
    ("transforms/hub", "transforms/inputs", "transforms/loading"),
    ("transforms/elements", "transforms/module", "transforms/writing"),
    ("transforms/derive.py",),
    ("transforms/module_artifact.py", "transforms/output_spec.py"),
    ("transforms/load_images.py", "transforms/model_handler.py", "transforms/predict.py"),
    ("transforms/label_images.py",),
    ("transforms/beam_yaml", "transforms/cross_language.py", "transforms/write_labels.py"),
    ("pipeline/errors.py", "pipeline/layout.py"),
    ("pipeline/demo", "pipeline/options", "pipeline/process", "pipeline/report"),
    ("pipeline/output",),
    ("pipeline/evaluate", "pipeline/job"),
    ("pipeline/commands", "pipeline/runners"),
    ("pipeline/run.py",),
    ("pipeline/__main__.py",),
    ("beamlabel/__main__.py",),
)
TENSORFLOW = {"tensorflow", "tensorflow_hub", "keras", "tf_keras"}
# The launcher's side, the engine of that name, and the demo, which writes a module.
WITH_TENSORFLOW = {
    "transforms/hub",
    "transforms/module",
    "transforms/inference/tensorflow_engine.py",
    "transforms/inference/lazy_tensorflow.py",
    "pipeline/demo",
}
MAX_FILE_LINES, MAX_FUNCTION_LINES, MAX_MODULES = 400, 60, 15


@cache
def files() -> dict[str, Path]:
    """Every module's file, by the module's name."""
    found = {}
    for package in ("beamlabel", "pipeline", "transforms"):
        # The links below beamlabel are not followed: what they name is read where it lies.
        paths = (ROOT / package).glob("*.py") if package == "beamlabel" else (ROOT / package).rglob("*.py")
        for path in paths:
            name = ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
            found[name if package == "beamlabel" else f"beamlabel.{name}"] = path
    return found


@cache
def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text())


def imported(path: Path) -> Iterator[str]:
    """The full names of what a file imports: of modules, or of what is in one."""
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{path}:{node.lineno}: a relative import"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def imports() -> dict[str, set[str]]:
    """Which of our modules each of them imports."""
    edges = {}
    for module, path in files().items():
        names = {name for name in imported(path) if name.partition(".")[0] == "beamlabel"}
        edges[module] = {name if name in files() else name.rpartition(".")[0] for name in names}
        assert edges[module] <= files().keys(), f"{path}: {edges[module] - files().keys()}"
    return edges


def short(module: str) -> str:
    return str(files()[module].relative_to(ROOT))


def folder(module: str) -> str:
    """The folder that a module is in; of one at a package's root, the file."""
    parts = files()[module].relative_to(ROOT).parts
    return "/".join(parts if len(parts) == 2 else parts[:-1])


def assert_no_circle(edges: dict[str, set[str]]) -> None:
    try:
        graphlib.TopologicalSorter(edges).prepare()
    except graphlib.CycleError as error:
        pytest.fail("an import circle: " + " ← ".join(error.args[1]))


def test_no_file_is_in_an_import_circle():
    assert_no_circle(imports())


def test_no_folder_is_in_an_import_circle():
    edges = defaultdict(set)
    for module, names in imports().items():
        edges[folder(module)] |= {folder(name) for name in names} - {folder(module)}
    assert_no_circle(edges)


def test_imports_go_down_only():
    level = {name: number for number, names in enumerate(LEVELS) for name in names}
    up = [
        f"{short(module)} imports {short(name)}"
        for module, names in imports().items()
        for name in names
        if folder(name) != folder(module) and level[folder(name)] >= level[folder(module)]
    ]
    assert not up


def test_every_folder_has_its_place():
    placed = [name for names in LEVELS for name in names]
    bare = {"pipeline/__init__.py", "transforms/__init__.py"}
    assert sorted(placed) == sorted({folder(module) for module in files()} - bare)
    for name in bare:
        assert [type(node) for node in tree(ROOT / name).body] == [ast.Expr], f"{name} is a docstring"


def test_transforms_never_import_pipeline():
    wrong = [
        (short(module), name)
        for module, names in imports().items()
        for name in names
        if short(module).startswith("transforms/") and short(name).startswith("pipeline/")
    ]
    assert not wrong


def test_our_folders_are_imported_by_our_name():
    for path in files().values():
        assert not {
            name for name in imported(path) if name.partition(".")[0] in ("pipeline", "transforms")
        }, path


def test_tensorflow_is_the_launchers():
    importing = {
        module
        for module, path in files().items()
        if TENSORFLOW & {name.partition(".")[0] for name in imported(path)}
    }
    assert importing
    assert not {
        short(module) for module in importing if not {folder(module), short(module)} & WITH_TENSORFLOW
    }


def test_nothing_is_too_long():
    others = [path for name in ("tests", "tools", "benchmarks") for path in (ROOT / name).rglob("*.py")]
    long = []
    for path in (*files().values(), *others):
        name, lines = path.relative_to(ROOT), len(path.read_text().splitlines())
        if lines > MAX_FILE_LINES:
            long.append(f"{name}: {lines} lines")
        for node in ast.walk(tree(path)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                lines = (node.end_lineno or 0) - node.lineno + 1
                if lines > MAX_FUNCTION_LINES:
                    long.append(f"{name}:{node.lineno} {node.name}: {lines} lines")
    assert not long


def test_no_folder_is_too_full():
    modules = defaultdict(list)
    for path in files().values():
        if path.name != "__init__.py":
            modules[str(path.parent.relative_to(ROOT))].append(path.name)
    assert {name: len(names) for name, names in modules.items() if len(names) > MAX_MODULES} == {}
