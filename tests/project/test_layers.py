"""The order of the directories: upper layers import lower ones, never the reverse.

The test reads the sources, including imports inside functions and for type checkers.
"""

import ast
import graphlib
from collections import defaultdict

import pytest

from support.layers import LEVELS, directory, files, imported, imports, short, tree
from support.paths import ROOT

TENSORFLOW = {"tensorflow", "tensorflow_hub", "keras", "tf_keras"}
# The launcher's side, the TensorFlow engine, and the two writers of modules: the demo and the training.
WITH_TENSORFLOW = {
    "transforms/module",
    "transforms/hub/shared_cache.py",
    "transforms/inference/tensorflow_engine.py",
    "transforms/inference/lazy_tensorflow.py",
    "pipeline/demo",
    "pipeline/fine_tune",
    "pipeline/train/head",
    "pipeline/train/module",
}
MAX_FILE_LINES, MAX_FUNCTION_LINES, MAX_MODULES = 400, 60, 16


def assert_no_circle(edges: dict[str, set[str]]) -> None:
    try:
        graphlib.TopologicalSorter(edges).prepare()
    except graphlib.CycleError as error:
        pytest.fail("an import circle: " + " ← ".join(error.args[1]))


def test_no_file_is_in_an_import_circle():
    assert_no_circle(imports())


def test_no_directory_is_in_an_import_circle():
    edges = defaultdict(set)
    for module, names in imports().items():
        edges[directory(module)] |= {directory(name) for name in names} - {directory(module)}
    assert_no_circle(edges)


def test_imports_go_down_only():
    level = {name: number for number, names in enumerate(LEVELS) for name in names}
    up = [
        f"{short(module)} imports {short(name)}"
        for module, names in imports().items()
        for name in names
        if directory(name) != directory(module) and level[directory(name)] >= level[directory(module)]
    ]
    assert not up


def test_every_directory_has_its_place():
    placed = [name for names in LEVELS for name in names]
    bare = {"pipeline/__init__.py", "transforms/__init__.py"}
    assert sorted(placed) == sorted({directory(module) for module in files()} - bare)
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


def test_our_directories_are_imported_by_our_name():
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
        short(module) for module in importing if not {directory(module), short(module)} & WITH_TENSORFLOW
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


def test_no_directory_is_too_full():
    modules = defaultdict(list)
    for path in files().values():
        if path.name != "__init__.py":
            modules[str(path.parent.relative_to(ROOT))].append(path.name)
    assert {name: len(names) for name, names in modules.items() if len(names) > MAX_MODULES} == {}
